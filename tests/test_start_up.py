"""What only looks starts quickly: it loads nothing that is slow to load."""

import subprocess
import sys

from workbench.cli.app import VERBS

HEAVY = ("torch", "torchvision", "lightning", "wandb", "datasets", "scipy", "pyarrow", "matplotlib", "torchmetrics")
LOOKING = [
    ["--help"],
    ["--version"],
    *([verb, "--help"] for verb in VERBS),
    *(["list", what] for what in ("recipes", "archs", "weights", "compared", "datasets")),
    ["show", "quickstart"],
    ["show", "--keys"],
    ["validate", "flowers_b0_cpu"],
    ["data", "list"],
]


def test_no_looking_verb_loads_what_is_slow():
    """All in one process: it keeps what any of them loads, so the first that does is named."""
    code = (
        "import contextlib, io, sys\nfrom workbench.cli.app import app\n"
        f"for arguments in {LOOKING!r}:\n"
        "    said = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(said): app(arguments, standalone_mode=False)\n"
        "    except SystemExit as e: assert not e.code, (arguments, e.code)\n"
        "    assert said.getvalue(), arguments\n"
        f"    heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "    assert not heavy, (arguments, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
