"""`compare` on damaged run folders: the file is named, or the calibration is not known."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from run_folders import read_rows, write_predictions, write_run
from safetensors.numpy import save_file

from workbench.analysis.compare import compare
from workbench.analysis.compare_calibration import calibrate
from workbench.cli.compare_verb import command
from workbench.specs.errors import UserError

ROWS = [("a", "x", "x", 0.9, 0.9, 1), ("b", "x", "y", 0.8, 0.1, 2), ("c", "y", "y", 0.7, 0.7, 1)]
SCORES = {"top1": 2 / 3, "n": 3, "interval95": None}


@pytest.fixture
def two_runs(tmp_path):
    folders = [write_run(tmp_path / name, dataset="blossoms", score=2 / 3, seed=s) for s, name in enumerate("pq")]
    for folder in folders:
        write_predictions(folder, ROWS)
    return folders


def refused(folders, name, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        compare(*folders)
    assert error.value.problems[0].where == str(folders[1] / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "a list"),
        ({"metric": None}, "no metric"),
        ({"seed": ...}, "no seed"),
        ({"stamps": ..., "arch": 3}, "no arch, stamps"),
        ({"test": [1]}, "no test"),
        ({"test": {"n": 3}}, "no test.top1"),
        ({"test": {**SCORES, "top1": float("nan")}}, "its top1 is nan"),
        ({"test": {**SCORES, "interval95": [0.5]}}, "its interval95 is [0.5]"),
        ({"test": {**SCORES, "openings": "x"}}, "test.openings is x"),
    ],
)
def test_a_damaged_result_is_named(two_runs, change, said):
    path = two_runs[1] / "result.json"
    result = json.loads(path.read_text()) | (change or {})
    kept = [1] if change is None else {name: value for name, value in result.items() if value is not ...}
    path.write_text(json.dumps(kept))
    refused(two_runs, "result.json", said)


@pytest.mark.parametrize(("text", "said"), [('[{"time"', "Expecting"), ('{"a": 1}', "a dict")])
def test_damaged_openings_are_named(two_runs, text, said):
    (two_runs[1] / "test_openings.json").write_text(text)
    refused(two_runs, "test_openings.json", said)


HEAD = "id,class,predicted,confidence,class_probability,class_rank\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,class\n\xff\xfe,x\n", "utf-8"),
        (b"id,class,predicted,confidence,class_rank\na,x,x,0.9,1\n", "no column class_probability"),
        (b"id,predicted\na,x\n", "no column class, confidence"),
        ((HEAD + "a,x,x,0.9,0.9,1\nb,x,x\n").encode(), "line 3, b: cells are missing"),
        ((HEAD + "a,x,x,nan,0.9,1\n").encode(), "line 2, a"),
        ((HEAD + "a,x,x,0.9,high,1\n").encode(), "line 2, a"),
        ((HEAD + "a,x,x,0.9,0.9,0\n").encode(), "line 2, a"),
        (b"", "no rows"),
    ],
)
def test_damaged_predictions_are_named(two_runs, content, said):
    (two_runs[1] / "predictions.csv").write_bytes(content)
    refused(two_runs, "predictions.csv", said)


LOGITS = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32))
TARGETS = np.array([0, 0, 1])
SOUND = {"test": LOGITS, "test_targets": TARGETS, "selection": LOGITS, "selection_targets": TARGETS}
NAN = np.where(LOGITS < -2, np.float32("nan"), LOGITS)


@pytest.mark.parametrize(
    "change",
    [
        {"selection_targets": None},
        {"selection_targets": TARGETS[:2]},
        {"selection_targets": TARGETS + 5},
        {"selection_targets": TARGETS - 1},
        {"selection_targets": TARGETS.astype(np.float32)},
        {"selection": LOGITS[:, 0].copy()},
        {"selection": NAN},
        {"test": NAN},
        {"test_targets": TARGETS[:1]},
    ],
)
def test_of_damaged_logits_no_temperature_is_made_up(two_runs, change):
    tensors = {name: tensor for name, tensor in (SOUND | change).items() if tensor is not None}
    save_file(tensors, two_runs[1] / "logits.safetensors")
    found = calibrate(two_runs[1], read_rows(two_runs[1] / "predictions.csv"))
    assert (found.how, found.temperatures, found.ece_after) == ("not known (the logits file is damaged)", (), None)
    done = CliRunner().invoke(command, [str(folder) for folder in two_runs], catch_exceptions=False)
    assert done.exit_code == 0
    assert "not known" in done.output


def test_sound_logits_have_a_temperature(two_runs):
    save_file(SOUND, two_runs[1] / "logits.safetensors")
    assert calibrate(two_runs[1], read_rows(two_runs[1] / "predictions.csv")).how.startswith("fitted on 3 selection")
