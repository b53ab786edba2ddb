"""Training crops: the regions that torchvision's transform takes, from pictures decoded no larger than needed."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_pixels import photo
from torchvision.transforms import InterpolationMode, v2

from workbench.data.images import load_for_crop, load_image
from workbench.data.order import seeded
from workbench.data.transforms import train_transform
from workbench.specs.errors import UserError


def test_crops_are_those_of_torchvisions_transform():
    crop = v2.RandomResizedCrop(32, (0.2, 1), interpolation=InterpolationMode.BICUBIC)
    mode = {"interpolation": InterpolationMode.BILINEAR}
    expected = v2.Compose([crop, v2.RandomHorizontalFlip(0.5), v2.RandAugment(2, 9, **mode)])
    found = train_transform(32, "bicubic", min_crop_area=0.2, policy="randaugment")
    for seed in range(30):
        image = load_image(np.array(photo(seed, (70 + seed, 50))))
        with seeded(seed):
            wanted = expected(image)
        with seeded(seed):
            assert torch.equal(found(image), wanted)


@pytest.mark.parametrize(("orientation", "size"), [(1, (300, 400)), (6, (400, 300))])
def test_a_large_jpeg_is_decoded_no_larger_than_its_crop_needs(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(1, (400, 300)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = load_image(tmp_path / "a.jpg")
    assert tuple(whole.shape[1:]) == size
    crop = train_transform(32, "bilinear").crop
    expected_divisors = set()
    for seed in range(40):
        with seeded(seed):
            image, box, found = load_for_crop(tmp_path / "a.jpg", 32, crop.choose)
        with seeded(seed):
            assert box == crop.choose(*size)
        divisor = round(size[0] / image.shape[1])
        expected_divisors.add(divisor)
        assert found == size
        assert min(box.height, box.width) // divisor >= 32 or divisor == 1
        assert divisor == 8 or min(box.height, box.width) < 2 * divisor * 32
        away = crop.cut(image, box, size).float() - crop.cut(whole, box, size).float()
        assert away.abs().mean() < 15  # half a pixel of the result to the side; another region is some 60 away
    assert expected_divisors >= {2, 4}


def test_a_cut_large_jpeg_is_refused_by_name(tmp_path):
    photo(1, (400, 300)).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a.jpg(.|\n)*do not decode"):
        load_for_crop(tmp_path / "a.jpg", 16, train_transform(16, "bilinear", min_crop_area=0.9).crop.choose)
