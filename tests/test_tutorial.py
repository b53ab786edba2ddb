"""docs/tutorial.md from start to end, in an empty folder, as typed."""

import json
import os
import subprocess
import sys

import pytest
from documented import ROOT, blocks


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorial_runs_from_start_to_end(tmp_path):
    pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    workbench = f'workbench() {{ "{sys.executable}" -m workbench "$@"; }}\nset -euo pipefail\n'
    parts = []
    for number, (language, text) in enumerate(blocks(ROOT / "docs" / "tutorial.md")):
        if language == "python":
            (tmp_path / f"block{number}.py").write_text(text)
            parts.append(f'"{sys.executable}" block{number}.py\n')
        else:
            parts.append(text)
    script = workbench + "echo ----\n".join(parts)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "100"}
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=1400)
    assert done.returncode == 0, done.stderr[-3000:]
    (quickstart,) = (tmp_path / "runs" / "quickstart").iterdir()
    assert json.loads((quickstart / "result.json").read_text())["test"]["top1"] > 0.8
    (own, probed) = sorted((tmp_path / "runs" / "any").iterdir())
    assert json.loads((own / "result.json").read_text())["test"]["top1"] > 0.5
    assert "probe" in json.loads((probed / "result.json").read_text())
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 161
    assert {path.name for path in (own / "exports").iterdir()} == {"exports.json", "model.onnx", "model.pt2"}
    assert (own / "README.md").read_text().startswith("---")
    assert (tmp_path / "report").is_dir()
    final = tmp_path / "sweeps" / "small" / "final"
    assert len(list(final.glob("seed*/*/*/result.json"))) == 2
