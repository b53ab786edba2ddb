"""Decoding and transforms, against Pillow and float64."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.data.images import decode, load_image
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
    ],
    ids=str,
)
def test_every_kind_becomes_the_rgb_that_pillow_sees(picture, mode, options):
    data = encoded(picture.convert(mode), **options)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    found = decode(data, "x").permute(1, 2, 0).numpy()
    assert found.shape == (48, 60, 3)
    assert np.abs(found.astype(int) - expected).max() <= (4 if options["format"] == "JPEG" else 0)


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = decode(encoded(Image.fromarray(ramp), format="PNG"), "x")
    assert np.array_equal(found[0].numpy(), (ramp // 256).astype(np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(picture, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(picture, format=kind, exif=exif), "x").shape == (3, 60, 48)


@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_does_not_decode_is_named(tmp_path, picture, kind, share):
    path = tmp_path / "broken.jpg"
    data = encoded(picture, format=kind)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError) as error:
        load_image(path)
    assert str(path) in str(error.value)
    assert "do not decode" in str(error.value)


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
