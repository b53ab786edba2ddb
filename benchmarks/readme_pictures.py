"""Make the README's pictures from a finished quickstart, by the tool itself: its maps, and the head of its page.

python benchmarks/readme_pictures.py runs/quickstart/20261123-101500-a1b2c3     # needs chromium
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from workbench import ImageDataModule

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COUNT = 3


def main() -> None:
    """Write maps.png and page.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    PICTURES.mkdir(exist_ok=True)
    data = ImageDataModule(card="blossoms")
    rows = data.rows("test")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for row in rows[:: len(rows) // COUNT][:COUNT]:
            files.append(Path(folder) / f"{data.classes[data.table.labels[row]]}.png")
            Image.fromarray(data.table.images[row]).save(files[-1])
        maps = [
            sys.executable,
            "-m",
            "workbench",
            "cam",
            str(run),
            *map(str, files),
            "--out",
            str(PICTURES / "maps.png"),
        ]
        subprocess.run(maps, check=True)
    page = (run / "report.html").resolve().as_uri()
    shot = f"--screenshot={PICTURES / 'page.png'}"
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,640")
    subprocess.run(["chromium", *flags, shot, page], check=True, capture_output=True)


if __name__ == "__main__":
    main()
