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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel are not installed")
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        resources = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(book, timeout=800, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert len(list((tmp_path / "runs" / "quickstart").iterdir())) == 1


def test_the_notebook_is_kept_without_outputs():
    book = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in book["cells"] if "outputs" in cell)
