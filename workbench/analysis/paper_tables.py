"""The paper's Tables 2, 3 and 7 with our own counts beside what is printed."""

from __future__ import annotations

from typing import Any

import torch

from workbench.models.backbones import build_backbone
from workbench.models.counting import Counts, count
from workbench.specs.architectures import ARCHS
from workbench.specs.compared import FAMILIES, NOT_BUILT, resolve_backbone
from workbench.specs.errors import UserError
from workbench.specs.paper_models import TABLE_2, TABLE_3, TABLE_7, printed


def counts_of(arch: str | dict[str, Any], resolution: int | None = None) -> Counts:
    """Count a network with 1000 classes.

    Args:
        arch: What `model.arch` takes.
        resolution: Input size, pixels; its native one if None.

    Raises:
        UserError: Unknown architecture, or its library is not installed.
    """
    backbone = resolve_backbone(arch)
    with torch.device("meta"):
        network = build_backbone(backbone)
    return count(network, resolution or backbone.resolution)


def imagenet_rows() -> list[dict[str, Any]]:
    """Return Table 2: printed figures as text, and parameters (M) and MAdds (G) as counted, or why they are not."""
    rows = []
    for row in TABLE_2:
        native = FAMILIES[row.arch].resolution if row.arch in FAMILIES else None
        native = ARCHS[row.arch].resolution if row.arch in ARCHS else native
        made: dict[str, Any] = {
            "model": row.title,
            "arch": row.arch,
            "beside": row.beside,
            "paper_top1": printed(row, "top1"),
            "paper_top5": printed(row, "top5"),
            "paper_params_m": printed(row, "params_m"),
            "paper_flops_b": printed(row, "flops_b"),
            "counted_params_m": None,
            "counted_madds_g": None,
            "resolution": row.resolution or native,
            "note": NOT_BUILT.get(row.arch, ""),
        }
        if native is not None:
            try:
                counts = counts_of(row.arch, row.resolution)
                made["counted_params_m"], made["counted_madds_g"] = counts.parameters / 1e6, counts.madds / 1e9
                if row.resolution:
                    made["note"] = f"the size that gives the printed FLOPS; native {native}"
            except UserError as error:
                made["note"] = f"not counted: {error.problems[0].given}"
        rows.append(made)
    return rows


def scaling_rows() -> list[dict[str, Any]]:
    """Return Tables 3 and 7: printed FLOPS and top-1, and our count of the network as we read its row."""
    rows = []
    for row in (*TABLE_3, *TABLE_7):
        counts = counts_of(row.arch)
        backbone = resolve_backbone(row.arch)
        rows.append(
            {
                "table": row.table,
                "model": row.family,
                "scaled": row.scaled,
                "width": backbone.width,
                "depth": backbone.depth,
                "resolution": backbone.resolution,
                "paper_flops_b": row.flops_b,
                "paper_top1": row.top1,
                "counted_params_m": counts.parameters / 1e6,
                "counted_madds_g": counts.madds / 1e9,
                "counted_over_paper": counts.madds / 1e9 / row.flops_b,
                "note": "" if row.stated else "multipliers not printed: our reading",
            }
        )
    return rows
