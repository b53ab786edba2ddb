"""Damaged pictures: read or refused in words, by whatever reads a picture, and counted where a set is prepared."""

import sys
import tempfile
from pathlib import Path
from random import Random

import pytest
from conftest import paint
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench import fit, load_recipe
from workbench.data import prepared
from workbench.data.preparing import prepare
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzzed
import mutations

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what it passes over in a damaged picture
FEW = settings(max_examples=120, deadline=None, derandomize=True, database=None)


def test_every_kind_is_read_whole_before_it_is_damaged(tmp_path):
    assert {name.split("-")[0] for name in fuzzed.PICTURES} == {"jpeg", "png", "webp", "gif", "bmp", "ppm", "tiff"}
    for name, data in fuzzed.PICTURES.items():
        told = [fuzzed.outcome(read) for read in fuzzed.picture_readers(data, tmp_path)]
        assert told == ["read"] * 4, name


@FEW
@given(st.integers(0, 10**9))
def test_a_damaged_picture_is_read_or_refused_and_never_a_traceback(number):
    with tempfile.TemporaryDirectory() as folder:
        sort, told = fuzzed.attempt("picture", number, Path(folder))
        assert told in ("read", "refused"), (sort, number, told)


@FEW
@given(
    st.binary(max_size=64), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"BM", b"P6"])
)
def test_any_bytes_behind_a_formats_first_ones_are_refused_or_read(rest, first):
    with tempfile.TemporaryDirectory() as folder:
        told = [fuzzed.outcome(read) for read in fuzzed.picture_readers(first + rest, Path(folder))]
        assert set(told) <= {"read", "refused"}, told


def damaged_set(root, count):
    """A folder of two classes, of which the first picture of each is whole."""
    random, data = Random(0), list(fuzzed.PICTURES.values())
    for number in range(count):
        path = root / ("red", "blue")[number % 2] / f"{number:03d}.png"
        paint(path, 0, number)
        if number > 1:
            path.write_bytes(mutations.damaged_bytes(random.choice(data), random, tuple(data)))


def test_preparing_counts_damaged_pictures_and_looks_agree_with_decoding(tmp_path):
    damaged_set(tmp_path / "set", 60)
    place = prepare(DatasetCard(name="mine", folder="set"), tmp_path)
    table, problems = prepared.read_table(place)
    assert len(table.ids) == 60
    assert 10 < sum(map(bool, problems)) < 59
    for image, problem in zip(table.images, problems, strict=True):
        told = fuzzed.outcome(fuzzed.picture_readers(image, tmp_path)[0])
        assert told == ("refused" if problem else "read")


def test_a_fit_stops_at_damaged_pictures_or_drops_them_as_asked(tmp_path, tiny_recipe):
    damaged_set(tmp_path / "set", 40)
    options = [f"data.path={tmp_path / 'set'}", "train.total_epochs=1"]
    with pytest.raises(UserError) as stopped:
        fit(load_recipe(str(tiny_recipe), options).recipe)
    assert "data.on_bad_image=drop" in str(stopped.value)
    outcome = fit(load_recipe(str(tiny_recipe), [*options, "data.on_bad_image=drop"]).recipe)
    assert outcome.result["dropped"] > 5
    assert outcome.result["test"]["n"] > 0


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000)])
def test_a_picture_far_longer_than_wide_is_refused_before_it_fills_the_memory(size, tmp_path):
    """By its shorter side, 2,000 x 1 pixels would grow to 512,000 x 256."""
    Image.new("L", size, 80).save(tmp_path / "line.png")
    reads = fuzzed.picture_readers((tmp_path / "line.png").read_bytes(), tmp_path)
    told = [fuzzed.outcome(reads[i]) for i in (0, 1, 3)]  # the doctor looks, and keeps the reason
    assert told == ["refused"] * 3
