"""Examine a dataset and append what was found to results/doctor.csv, a row per finding.

python benchmarks/doctor.py flowers data.root=../shared/data
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import measured

from workbench import recipe_files
from workbench.data.doctor import examine_prepared
from workbench.data.preparing import prepare
from workbench.training import machine


def main() -> None:
    """Prepare, examine and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    arguments, overrides = parser.parse_known_args()
    loaded = recipe_files.load_data(arguments.name, overrides)
    data = loaded.recipe.data
    base = Path(data.prepared_root) if data.prepared_root else None
    folder = prepare(loaded.card, Path(data.root), Path(data.path) if data.path else None, prepared_root=base)
    began = time.perf_counter()
    table, report = examine_prepared(folder, loaded.card, data.holdout_fraction, 224)
    seconds = round(time.perf_counter() - began, 1)
    command, environment = f"python -m workbench data doctor {arguments.name}", machine.describe()
    for finding in report.findings:
        groups = [group for group in finding.ids if len(group) > 1]
        row = {"dataset": arguments.name, "n": len(table.ids), "kind": finding.kind, "severity": finding.severity}
        row |= {"images": finding.count, "groups": len(groups) or "", "finding": finding.text, "seconds": seconds}
        if finding.severity == "wrong":
            row["ids"] = " | ".join(" = ".join(group) for group in finding.ids)
        measured.append("doctor.csv", {**row, "ids": row.get("ids", "")}, command, environment)
        print(row)


if __name__ == "__main__":
    main()
