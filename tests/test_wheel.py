"""The built package: recipes, cards and embedded weights are inside and found."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_carries_recipes_cards_and_weights_and_runs_without_the_source(tmp_path):
    copy = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in listed:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, copy]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / "workbench").rglob("*.py")}
    expected |= {f"workbench/{p.relative_to(ROOT)}" for p in (ROOT / "recipes").rglob("*.yaml")}
    expected |= {f"workbench/cards/{p.name}" for p in (ROOT / "data").glob("*.yaml")}
    expected |= {"workbench/models/embedded/tiny_blossoms.safetensors", "workbench/training/run_page.jinja"}
    expected |= {"workbench/analysis/report.jinja"}
    assert expected <= names
    assert wheel.stat().st_size < 2 * 2**20
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from workbench.cli.app import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", code, "fit", "--recipe", "quickstart", "--plan"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    assert "320 training images by its card" in shown.stdout
    assert str(site) not in shown.stderr
