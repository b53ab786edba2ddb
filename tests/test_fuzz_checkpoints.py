"""Checkpoints that are cut or changed anywhere: taken only if they hold what was written, else the one before."""

import io

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.specs.errors import UserError
from workbench.training import continuing, run_folder


def packed(step):
    file = io.BytesIO()
    generator = torch.Generator().manual_seed(step)
    weights = {"weight": torch.randn(64, 9, generator=generator), "count": torch.tensor(step)}
    torch.save({"global_step": step, "state_dict": weights, "loops": {"done": [1, 2, 3]}}, file)
    return file.getvalue()


LAST, PREVIOUS = packed(7), packed(5)
PLACES = st.integers(0, len(LAST) - 1)


@st.composite
def damaged(draw, whole=LAST):
    kind, place = draw(st.sampled_from(["cut", "bit", "zeros", "doubled", "joined"])), draw(PLACES)
    if kind == "cut":
        return whole[:place]
    if kind == "bit":
        return whole[:place] + bytes([whole[place] ^ (1 << draw(st.integers(0, 7)))]) + whole[place + 1 :]
    if kind == "zeros":
        length = draw(st.integers(1, 4096))
        return (whole[:place] + bytes(length) + whole[place + length :])[: len(whole)]
    if kind == "doubled":
        return whole[:place] + whole
    return whole[:place] + PREVIOUS[place:]


def holds(path, expected):
    content, wanted = torch.load(path, weights_only=True), torch.load(io.BytesIO(expected), weights_only=True)
    weights = content.pop("state_dict"), wanted.pop("state_dict")
    return content == wanted and all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(damaged())
def test_a_damaged_checkpoint_is_never_taken_for_what_was_written(tmp_path_factory, changed):
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / run_folder.LAST).write_bytes(changed)
    (folder / run_folder.PREVIOUS).write_bytes(PREVIOUS)
    step = continuing.last_step(folder)
    assert holds(folder / run_folder.LAST, LAST if step == 7 else PREVIOUS)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(damaged())
def test_two_damaged_checkpoints_are_refused_in_words(tmp_path_factory, changed):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in (run_folder.LAST, run_folder.PREVIOUS):
        (folder / name).write_bytes(changed)
    told = "to begin again from step 0"
    try:
        step = continuing.last_step(folder)
    except UserError as error:
        told = str(error)
    else:
        assert holds(folder / run_folder.LAST, LAST if step == 7 else PREVIOUS)
    assert "to begin again from step 0" in told
