"""`workbench cam`: what models look at, as a grid of class activation maps."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUN_OR_MODEL... PICTURE_OR_FOLDER...")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The PNG to write.")
@click.option("--class", "name", help="The class whose maps to draw; the most probable one if not given.")
@click.option(
    "--method",
    type=click.Choice(["auto", "cam", "gradcam", "layercam"]),
    default="auto",
    show_default=True,
    help="auto: exact maps where the head allows and the last map is fine enough.",
)
@click.option("--overlay-only", is_flag=True, help="Leave out the column of pictures.")
def command(paths: tuple[str, ...], out: Path, name: str | None, method: str, overlay_only: bool) -> None:
    """Draw which places of a picture speak for a class: a row per picture, a column per model.

    A folder with a model.json is a model; everything else is a picture or a folder of pictures.

    \b
    workbench cam runs/quickstart/20261123-101500-a1b2c3 photo.jpg more/ --out grid.png
    workbench cam RUN_OF_B0 RUN_OF_A_DEEPER_ONE photo.jpg --class "pink primrose" --out grid.png
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.analysis import cam_grid
    from workbench.atomic import disk_errors, replacing
    from workbench.specs.errors import UserError

    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise UserError.of("cam --out", out, "a .png file in an existing folder", "choose such a path")
    models, pictures = cam_grid.find_inputs([Path(path) for path in paths])
    grid = cam_grid.cam_grid(cam_grid.load_models(models), pictures, name, method, overlay_only)
    with disk_errors(out, "give --out another place"), replacing(out) as beside:
        grid.save(beside, format="PNG", optimize=True)
    print(out)
