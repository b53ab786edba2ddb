"""What the paper prints, as rows of a report and as points of its Figure 6."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.analysis.report_tables import AGAINST, IMAGENET, TRANSFER, Row, times
from workbench.specs import published
from workbench.specs.paper_models import SOURCE, TABLE_2, PaperModel, paper_model
from workbench.specs.published import Transfer, transfers_of


def transfer_rows(card: str) -> list[Row]:
    """Return what Table 5 prints for a dataset: each previous best and the EfficientNet beside it."""
    rows = []
    for half in transfers_of(card):
        rows.append(
            Row(
                TRANSFER,
                card,
                what=AGAINST[half.against],
                model=half.other,
                percent=half.other_percent,
                params_m=half.other_params_m,
                source=published.SOURCE,
            )
        )
        rows.append(
            Row(
                TRANSFER,
                card,
                what="published",
                model=f"EfficientNet-{half.arch.upper()}",
                percent=half.percent,
                document=half.document,
                params_m=half.params_m,
                reduction=f"{half.ratio:g}x fewer than {half.other}" if half.ratio else "",
                source=published.SOURCE,
            )
        )
    return rows


def imagenet_rows(archs: Sequence[str]) -> list[Row]:
    """Return Table 2's rows of the EfficientNets among `archs`, of what they are compared with, and of those asked."""
    asked = {model.beside for arch in archs if (model := paper_model(arch))}
    return [_imagenet_row(model) for model in TABLE_2 if model.beside in asked]


def _imagenet_row(model: PaperModel) -> Row:
    own = next(row for row in TABLE_2 if row.arch == model.beside)
    ratio = f"EfficientNet-{own.arch.upper()} has {times(model.params_m / own.params_m)} fewer" if model != own else ""
    return Row(
        IMAGENET,
        "imagenet",
        what="published",
        model=model.title,
        percent=model.top1,
        document=model.document.get("top1"),
        top5=model.top5,
        params_m=model.params_m,
        flops_b=model.flops_b,
        document_flops_b=model.document.get("flops_b"),
        reduction=ratio,
        source=f"{SOURCE}, Table 2",
    )


def points(card: str) -> list[tuple[str, float, float, bool]]:
    """Return what is printed for a panel of Figure 6: (model, parameters in millions, percent, is an EfficientNet)."""
    halves: tuple[Transfer, ...] = transfers_of(card)
    found = {(h.other, h.other_params_m, h.other_percent, False) for h in halves if h.other_params_m}
    found |= {(f"B{h.arch[1:]}", h.params_m, h.percent, True) for h in halves}
    if card in published.GPIPE:
        found.add(("GPipe", published.GPIPE_PARAMS_M, published.GPIPE[card], False))
    return sorted(found, key=lambda point: point[1:])
