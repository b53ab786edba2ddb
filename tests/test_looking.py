"""The facts of one picture, and which pictures count as alike."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dct

from workbench.data import blossoms
from workbench.data.doctor import duplicate_pairs
from workbench.data.looking import MAX_HASH_BITS, MIN_CONTRAST, Facts, look


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "PNG"} | options))
    return buffer.getvalue()


def near_pairs(images):
    facts = [look(data) for data in images]
    return duplicate_pairs({field.name: [getattr(fact, field.name) for fact in facts] for field in fields(Facts)})[1]


@pytest.fixture(scope="module")
def photo():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)


def cropped(image, share):
    width, height = image.size
    x, y = round(share * width), round(share * height)
    return image.crop((x, y, width - x, height - y))


def variants(image):
    """Return copies that a person would call the same picture."""
    small = image.resize((round(0.6 * image.width), round(0.6 * image.height)), Image.Resampling.BICUBIC)
    return {
        "resized": encoded(small, format="JPEG", quality=90),
        "quality 30": encoded(image, format="JPEG", quality=30),
        "brighter": encoded(ImageEnhance.Brightness(image).enhance(1.2), format="JPEG", quality=90),
        "cropped": encoded(cropped(image, 0.03), format="JPEG", quality=90),
        "grey": encoded(image.convert("L"), format="JPEG", quality=90),
    }


def test_the_facts_of_a_plain_picture(photo):
    data = encoded(photo)
    facts = look(data)
    assert (facts.width, facts.height, facts.mode, facts.orientation) == (160, 120, "RGB", 1)
    assert facts.grey is False
    assert facts.problem == ""
    assert facts.sha256 == hashlib.sha256(data).hexdigest()


def test_hash_and_thumb_are_as_defined(photo):
    square = photo.resize((96, 64))
    facts = look(encoded(square))
    luma = np.asarray(square, dtype=np.float64) @ [0.299, 0.587, 0.114]
    small = luma.reshape(32, 2, 32, 3).mean((1, 3))
    thumb = luma.reshape(16, 4, 16, 6).mean((1, 3))
    assert (
        np.abs(np.frombuffer(facts.thumb, np.uint8).reshape(16, 16) - thumb).max() <= 3
    )  # rounded to bytes three times
    low = dct(dct(small, axis=0), axis=1)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    clear = np.abs(low - np.median(low[1:])) > 100  # rounding to bytes may turn the others
    assert clear.sum() > 50
    assert np.array_equal(np.unpackbits(np.frombuffer(facts.phash, np.uint8)).astype(bool)[clear], bits[clear])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_the_mode_is_that_of_the_file(photo, mode):
    assert look(encoded(photo.convert(mode))).mode == mode
    assert look(encoded(photo.convert("CMYK"), format="JPEG")).mode == "CMYK"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_and_the_upright_size(photo, kind):
    for orientation, size in ((1, (160, 120)), (3, (160, 120)), (6, (120, 160)), (9, (160, 120))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        facts = look(encoded(photo, format=kind, exif=exif))
        assert (facts.width, facts.height) == size
        assert facts.orientation == (1 if orientation == 9 else orientation)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_broken_exif_counts_as_upright(photo, kind):
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"):
        facts = look(encoded(photo, format=kind, exif=exif))
        assert (facts.orientation, facts.problem) == (1, "")


def test_grey_is_told_by_the_pixels(photo):
    grey = np.repeat(np.asarray(photo.convert("L"))[:, :, None], 3, axis=2).astype(int)
    shifted = lambda by: encoded(Image.fromarray((grey.clip(5, 250) + [by, 0, 0]).astype(np.uint8)))  # noqa: E731
    assert look(encoded(photo.convert("L"))).grey
    assert look(encoded(photo.convert("L").convert("RGB"), format="JPEG")).grey
    assert look(shifted(2)).grey
    assert look(shifted(-2)).grey
    assert not look(shifted(3)).grey
    assert not look(shifted(-3)).grey
    assert look(encoded(Image.new("RGB", (1, 1), (9, 9, 9)))).grey


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.98])
def test_what_does_not_decode_has_a_problem_and_no_size(photo, share, kind):
    data = encoded(photo, format=kind)
    facts = look(data[: int(share * len(data))])
    assert "bytes that do not decode" in facts.problem
    assert "given" not in facts.problem
    assert (facts.width, facts.height, facts.grey) == (0, 0, False)
    assert facts.phash == bytes(8)
    assert facts.thumb == bytes(256)
    assert facts.mode == ("RGB" if share >= 0.5 else "")
    assert facts.sha256 == hashlib.sha256(data[: int(share * len(data))]).hexdigest()


def test_threads_see_the_same(photo):
    data = [encoded(photo.rotate(angle), format=kind) for angle in range(0, 90, 5) for kind in ("JPEG", "PNG")]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, data)) == [look(one) for one in data]


def test_flat_pictures_are_not_alike():
    rng = np.random.default_rng(0)
    flat = [np.full((64, 64, 3), level) + rng.integers(-3, 4, (64, 64, 3)) for level in (5, 60, 128, 200, 250)]
    ramps = [np.full((64, 64, 3), 100.0) + np.linspace(-a, a, 64)[:, None, None] for a in (1, 2, 3, 4, 5)]
    images = [encoded(Image.fromarray(array.clip(0, 255).astype(np.uint8))) for array in (*flat, *ramps)]
    images += [encoded(Image.new("RGB", (50, 50), colour)) for colour in ("black", "white", "red")]
    assert near_pairs(images).tolist() == []


def test_contrast_just_above_the_limit_is_compared(photo):
    spread = np.asarray(photo.convert("L"), dtype=np.float64)
    spread = (spread - spread.mean()) / spread.std()
    for contrast, found in ((0.5 * MIN_CONTRAST, 0), (2 * MIN_CONTRAST, 1)):
        pair = [Image.fromarray((level + contrast * spread).clip(0, 255).astype(np.uint8)) for level in (120, 130)]
        assert len(near_pairs([encoded(image) for image in pair])) == found


def test_an_equal_hash_alone_does_not_make_pictures_alike():
    rng = np.random.default_rng(0)
    thumbs = [rng.bytes(256) for _ in range(20)]
    columns = {"phash": [bytes(8)] * 20, "thumb": thumbs, "sha256": list(map(str, range(20))), "problem": [""] * 20}
    assert len(duplicate_pairs(columns)[1]) == 0
    shade = np.frombuffer(thumbs[0], np.uint8) // 2
    columns["thumb"][7] = (shade + np.arange(256) % 2 * 40).astype(np.uint8).tobytes()
    assert 0.8 < np.corrcoef(shade, np.frombuffer(columns["thumb"][7], np.uint8))[0, 1] < 0.93
    assert len(duplicate_pairs(columns)[1]) == 0
    columns["thumb"][7] = shade.tobytes()
    assert duplicate_pairs(columns)[1].tolist() == [[0, 7]]


def test_variants_are_alike_and_different_pictures_are_not():
    kinds = blossoms.species("upstream")[::6]
    originals = [Image.fromarray(blossoms.render(k, 3, i, 128)) for k in kinds for i in range(5)]
    images = []
    for image in originals:
        images += [encoded(image), *variants(image).values()]
    pairs = near_pairs(images)
    assert (pairs[:, 0] // 6 == pairs[:, 1] // 6).all()  # never across originals

    assert (pairs[:, 0] % 6 == 0).sum() >= 0.97 * 5 * len(originals)
    assert MAX_HASH_BITS < 16  # at half of 32 bits apart, unrelated pictures would start to meet by chance


def test_variants_of_real_photos_are_alike_and_strangers_are_not(shared):
    paths = sorted((shared / "data" / "flowers-102" / "jpg").glob("*.jpg"))[::200]
    images = []
    for path in paths:
        with Image.open(path) as photo:
            images += [path.read_bytes(), *variants(photo.convert("RGB")).values()]
    pairs = near_pairs(images)
    assert (pairs[:, 0] // 6 == pairs[:, 1] // 6).all()
    assert (pairs[:, 0] % 6 == 0).sum() >= 0.97 * 5 * len(paths)
