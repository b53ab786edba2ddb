"""`workbench export`: a model in the forms that other programs run."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.cli.app import SETTINGS

NAMES = ("onnx", "program", "safetensors", "openvino", "int8")


@click.command(context_settings=SETTINGS)
@click.argument("model", metavar="MODEL")
@click.option("--format", "names", default="onnx", show_default=True, metavar="A,B,...", help=", ".join(NAMES) + ".")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to; MODEL/exports without it.")
@click.option("--with-preprocessing", is_flag=True, help="Take uint8 RGB, cropped: normalising goes inside.")
@click.option("--images", multiple=True, metavar="PATH", help="Compare on these, not on the run's selection split.")
@click.option("--count", default=200, show_default=True, type=click.IntRange(1), help="Images to compare on.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Of probabilities, for float32 forms.")
@click.option("--agreement", default=0.95, show_default=True, help="Least share of the same classes, for int8.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[data.KEY=VALUE ...]")
def command(model: str, names: str, out: Path | None, images: tuple[str, ...], **options) -> None:
    """Write a model as ONNX, torch.export program, safetensors or OpenVINO; compare each on real images.

    \b
    workbench export RUN --format onnx,int8
    workbench export RUN --format onnx --with-preprocessing --out phone/ data.root=~/sets
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.cli.tables import print_exports
    from workbench.cli.waiting import waiting
    from workbench.data.images import IMAGE_ENDINGS
    from workbench.exports.exporting import ExportOptions, export
    from workbench.models.portable import read_description
    from workbench.specs.errors import UserError

    chosen = [name for name in dict.fromkeys(names.split(",")) if name]
    if odd := [name for name in chosen if name not in NAMES] or ([] if chosen else [names]):
        raise UserError.of("export: --format", ", ".join(odd), ", ".join(NAMES), "name some of these")
    files = []
    for path in map(Path, images):
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_ENDINGS) if path.is_dir() else [path]
        files += found
    if images and not files:
        raise UserError.of("export: --images", " ".join(images), "pictures, or folders of them", "check the paths")
    takes_bytes = options.pop("with_preprocessing")
    told = ExportOptions(takes_bytes=takes_bytes, images=tuple(files), **options)
    place = out or read_description(model)[0] / "exports"
    with waiting(f"writing {', '.join(chosen)}, and comparing each with the model", is_still=True):
        rows = export(model, chosen, place, told)
    print_exports(rows)
    print(place)
