"""Decoding and transforms, against Pillow and float64."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from workbench.data.images import IMAGE_ENDINGS, MAX_PIXELS, decode, load_image
from workbench.data.transforms import eval_transform, normalise, train_transform
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


@pytest.fixture
def picture():
    ramp = np.linspace(0, 255, 48 * 60 * 3).reshape(48, 60, 3).astype(np.uint8)
    return Image.fromarray(ramp)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"format": "JPEG", "quality": 95}),
        ("L", {"format": "JPEG", "quality": 95}),
        ("CMYK", {"format": "JPEG", "quality": 95}),
        ("RGB", {"format": "PNG"}),
        ("L", {"format": "PNG"}),
        ("P", {"format": "PNG"}),
        ("RGBA", {"format": "PNG"}),
        ("P", {"format": "GIF"}),
        ("RGB", {"format": "WEBP", "lossless": True}),
        ("RGB", {"format": "BMP"}),
        ("LA", {"format": "PNG"}),
        ("1", {"format": "PNG"}),
        ("P", {"format": "PNG", "transparency": 3}),
        ("P", {"format": "PNG", "transparency": bytes(range(256))}),
        ("RGB", {"format": "PNG", "transparency": (0, 0, 0)}),
        ("RGBA", {"format": "WEBP", "lossless": True, "exact": True}),
        ("YCbCr", {"format": "JPEG", "quality": 95}),
        ("RGB", {"format": "JPEG", "quality": 95, "progressive": True}),
        ("RGB", {"format": "PPM"}),
        ("PA", {"format": "TIFF"}),
        ("CMYK", {"format": "TIFF"}),
        ("RGB", {"format": "TIFF", "compression": "tiff_lzw"}),
        ("1", {"format": "TIFF", "compression": "group4"}),
    ],
    ids=str,
)
def test_every_kind_becomes_the_rgb_that_pillow_sees(picture, mode, options):
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    kind = picture.convert("RGB").convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    data = encoded(kind, **options)
    opened = Image.open(io.BytesIO(data))
    opened.info.pop("transparency", None)
    expected = np.array(opened.convert("RGB"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = decode(data, "x").permute(1, 2, 0).numpy()
    assert found.shape == (48, 60, 3)
    assert np.abs(found.astype(int) - expected).max() <= (4 if options["format"] == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = decode(encoded(Image.fromarray(ramp), format=kind), "x")
    assert np.array_equal(found[0].numpy(), (ramp // 256).astype(np.uint8))


def test_16_bit_colour_keeps_its_high_byte():
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        png += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    assert np.array_equal(decode(png, "x").permute(1, 2, 0).numpy(), (values >> 8).astype(np.uint8))


def test_32_bit_grey_counts_as_16_bit_or_is_refused():
    ramp = np.linspace(0, 65535, 64).astype(np.int32).reshape(8, 8)
    found = decode(encoded(Image.fromarray(ramp), format="TIFF"), "x")
    assert np.array_equal(found[2].numpy(), (ramp // 256).astype(np.uint8))
    for changed, text in ((ramp + 1, "from 1 to 65536"), (ramp - 1, "from -1 to 65534")):
        with pytest.raises(UserError, match=rf"deep.tif(.|\n)*grey values {text}(.|\n)*8 or 16 bits"):
            decode(encoded(Image.fromarray(changed), format="TIFF"), "deep.tif")


def test_a_floating_point_picture_is_refused_by_name():
    with pytest.raises(UserError, match=r"heights.tif(.|\n)*floating-point(.|\n)*8-bit PNG"):
        decode(encoded(Image.new("F", (4, 4), 0.5), format="TIFF"), "heights.tif")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_counts(kind):
    frames = [Image.new("RGB", (9, 6), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format=kind, save_all=True, append_images=frames[1:])
    assert (decode(data, "x").flatten(1).float().mean(1) - torch.tensor([255.0, 0, 0])).abs().max() < 3  # lossy WebP


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind, orientation):
    quarters = np.repeat(np.repeat(np.array([[0, 80], [160, 240]], dtype=np.uint8), 16, axis=0), 24, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(Image.fromarray(quarters).convert("RGB"), format=kind, exif=exif), "x")[0].numpy()
    expected = np.rot90(quarters, {3: 2, 6: -1, 8: 1}[orientation])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_broken_exif_leaves_the_picture_as_it_is(picture, kind):
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"):
        assert decode(encoded(picture, format=kind, exif=exif), "x").shape == (3, 48, 60)


@pytest.fixture(scope="module")
def photo():
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + np.random.default_rng(1).integers(-9, 10, smooth.shape)).clip(0, 255).astype("u1"))


KINDS = {
    "jpeg": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "cmyk": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "webp": {"format": "WEBP"},
    "lossless": {"format": "WEBP", "lossless": True},
    "bmp": {"format": "BMP"},
    "ppm": {"format": "PPM"},
    "tiff": {"format": "TIFF"},
    "lzw": {"format": "TIFF", "compression": "tiff_lzw"},
}


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated")
def test_a_cut_file_is_refused_by_name(tmp_path, photo, kind, share):
    data = encoded(photo.convert("CMYK") if kind == "cmyk" else photo, **KINDS[kind])
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError) as error:
        load_image(path)
    assert str(path) in str(error.value)
    assert "do not decode" in str(error.value)
    assert "0x" not in str(error.value)  # no address of an object


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated")
def test_a_cut_at_the_very_end_is_refused_or_costs_no_pixel(photo, kind):
    data = encoded(photo.convert("CMYK") if kind == "cmyk" else photo, **KINDS[kind])
    for lost in range(1, 20):
        try:
            found = decode(data[:-lost], "x")
        except UserError:
            continue
        assert torch.equal(found, decode(data, "x"))


def test_what_follows_the_end_of_a_jpeg_does_not_matter(photo):
    data = encoded(photo, format="JPEG")
    for behind in (bytes(4096), b"garbage" * 999, data[:500]):
        assert torch.equal(decode(data + behind, "x"), decode(data, "x"))
    for ending in (b"", bytes(300), b"garbage" * 50):  # no end at all: perhaps whole, but nothing says so
        with pytest.raises(UserError, match="incomplete or truncated"):
            decode(data[:-2] + ending, "x")


def bomb(kind):
    """Return a tiny file whose header says 60000 x 60000 (WebP: 16383 x 16383, its largest)."""
    side = 60_000
    if kind == "PPM":
        return b"P6 60000 60000 255\n" + bytes(99)
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    extra = {"save_all": True, "append_images": frames[1:]} if kind == "WEBP" else {}
    data = bytearray(encoded(frames[0], format=kind, **extra))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif kind == "WEBP":
        data[24:30] = (16382).to_bytes(3, "little") * 2
    else:  # TIFF: the tags 256 and 257
        for at in range(10, 10 + 12 * struct.unpack("<H", data[8:10])[0], 12):
            if struct.unpack("<H", data[at : at + 2])[0] in (256, 257):
                data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "TIFF"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(kind):
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError, match=r"bomb.img(.|\n)*pixels(.|\n)*at most 100 million(.|\n)*smaller"):
                decode(bomb(kind), "bomb.img")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_size_is_refused_from_the_first_pixel_over_the_limit(monkeypatch, picture):
    assert MAX_PIXELS == 100_000_000
    monkeypatch.setattr("workbench.data.images.MAX_PIXELS", 48 * 60)
    data = encoded(picture, format="JPEG")
    assert decode(data, "x").shape == (3, 48, 60)
    monkeypatch.setattr("workbench.data.images.MAX_PIXELS", 48 * 60 - 1)
    with pytest.raises(UserError, match="60 x 48 pixels"):
        decode(data, "x")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"RIFF\0\0\0\0WAVEfmt ", b"%!PS-Adobe EPSF"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(UserError, match="bytes that do not decode: "):
        decode(data, "x")


def test_pillow_is_not_told_to_fill_up_cut_files():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_picture_comes_from_a_file_bytes_or_an_array(tmp_path, picture):
    data = encoded(picture, format="PNG")
    (tmp_path / "a.png").write_bytes(data)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    for source in (tmp_path / "a.png", data, np.array(picture)):
        assert torch.equal(load_image(source), expected)
    with pytest.raises(UserError, match="encoded picture"):
        load_image(data[:99])


def test_no_real_photo_is_refused(shared):
    paths = sorted(path for path in (shared / "data").rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    for path in paths[:: max(1, len(paths) // 900)]:
        assert load_image(path).ndim == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.jpg"):
        load_image(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_equals_pillows_resize_and_crop(interpolation):
    smooth = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((160, 120), Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(64, 56, interpolation)
    method = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    resized = photo.resize((round(160 * 64 / 120), 64), method)
    left, top = round((resized.width - 56) / 2), 4
    expected = np.array(resized.crop((left, top, left + 56, top + 56))).astype(int)
    found = eval_transform(preprocessing)(torch.from_numpy(np.array(photo)).permute(2, 0, 1))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= 1  # rounding of the two libraries' uint8 kernels


def test_normalise_equals_the_float64_formula():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    preprocessing = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float64).view(3, 1, 1)
    expected = (images.double() / 255 - mean) / std
    torch.testing.assert_close(normalise(images, preprocessing).double(), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match="uint8"):
        normalise(images.float(), preprocessing)


@pytest.mark.parametrize("policy", ["none", "randaugment", "autoaugment", "trivialaugment"])
def test_training_transform_gives_bytes_of_the_asked_size(policy):
    transform = train_transform(40, "bicubic", policy=policy, cutout=1.0)
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    made = transform(image)
    assert made.shape == (3, 40, 40)
    assert made.dtype == torch.uint8


def test_crop_area_and_flip_act():
    gradient = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1)
    whole = train_transform(64, "bilinear", min_crop_area=1.0, max_crop_aspect=1.0, flip=0.0)
    assert torch.equal(whole(gradient), gradient)
    flipped = train_transform(64, "bilinear", min_crop_area=1.0, max_crop_aspect=1.0, flip=1.0)
    assert torch.equal(flipped(gradient), gradient.flip(2))
    torch.manual_seed(0)
    small = train_transform(64, "bilinear", min_crop_area=0.1, flip=0.0)
    spans = [int(out.max()) - int(out.min()) for out in (small(gradient) for _ in range(20))]
    assert min(spans) < 40


def test_cutout_erases_with_the_mean_colour():
    torch.manual_seed(0)
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    made = train_transform(64, "bilinear", cutout=1.0)(white)
    erased = (made != 255).any(0)
    assert 0.015 < erased.float().mean() < 0.35
    assert made[:, erased].unique(dim=1).flatten().tolist() == [124, 116, 104]
