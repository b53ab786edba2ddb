"""Where the recipes and cards that ship with the workbench lie, and how a YAML file is read. No torch.

In a source tree they are `recipes/` and `data/` at the top; in an installed package, inside it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from workbench.specs.errors import UserError
from workbench.specs.printable import acting_text

_PACKAGE = Path(__file__).resolve().parent
_IS_SOURCE_TREE = (_PACKAGE.parent / "pyproject.toml").is_file() and (_PACKAGE.parent / "recipes").is_dir()
RECIPES = _PACKAGE.parent / "recipes" if _IS_SOURCE_TREE else _PACKAGE / "recipes"
CARDS = _PACKAGE.parent / "data" if _IS_SOURCE_TREE else _PACKAGE / "cards"
DEEPEST = 100
"""Levels of a YAML file; ours have 5."""
RESULTS = _PACKAGE.parent / "results"
"""Measured figures; only a source tree has them."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain values: nothing is interpolated and nothing in it can run.

    Raises:
        UserError: Unreadable, not YAML, a duplicate key, not a mapping, or containing `${`.
    """
    return _values(path, _text(path))


def read_sections(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read some sections of a file that a program wrote, a fifth of the time of reading all.

    Args:
        path: The file.
        names: Of the sections, top-level keys; where the file has none of them, everything is read.

    Raises:
        UserError: As `read_yaml`.
    """
    text = _text(path)
    return _values(path, "".join(re.findall(rf"^(?:{'|'.join(names)}):.*\n(?:[ \t].*\n|\n)*", text + "\n", re.M)))


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError.of(path, error, "a readable UTF-8 text file", "check the path and its permissions") from error
    if "${" in text:
        line = next(n for n, line in enumerate(text.splitlines(), 1) if "${" in line)
        raise UserError.of(
            f"{path}:{line}",
            "${...}",
            "plain values",
            "write the value out: recipes and cards are data, not code",
        )
    return text


def check_depth(path: Path, text: str) -> None:
    """Refuse YAML that is nested deeper than any of ours: PyYAML's fast reader ends the process on some thousands.

    Raises:
        UserError: It is.
    """
    if sum(map(text.count, "[{-?:")) <= DEEPEST:  # every level needs one of these
        return
    depth = 0
    with contextlib.suppress(yaml.YAMLError):  # what is wrong is said by who reads the values
        for event in yaml.parse(text, _PlainLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                where = f"{path}:{event.start_mark.line + 1}"
                raise UserError.of(where, "nested too deeply", f"{DEEPEST} levels", "take levels out")


def _values(path: Path, text: str) -> dict[str, Any]:
    check_depth(path, text)
    try:
        values = copy.deepcopy(_parsed(path, text))
        str(values)  # Python refuses to print numbers of thousands of digits: better here than in some message
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        first = str(error).strip().replace("\n", " ")
        raise UserError.of(path, first, "YAML of plain values", "correct the file at the place named") from error
    if not isinstance(values, dict):
        raise UserError.of(
            path, f"a {type(values).__name__}", "a mapping of sections", "begin with `data:` or `extends:`"
        )
    if (odd := acting_text(values)) is not None:
        raise UserError.of(path, f"{odd!r:.80}", "text without control characters", "take them out")
    return values


@functools.cache
def _parsed(path: Path, text: str) -> Any:
    """Return the plain values of a file with this text; many recipes share a parent and a card."""
    if not _UNUSUAL.search(text):
        with contextlib.suppress(_UnusualYaml, yaml.YAMLError):
            values = yaml.load(text, _PlainLoader)
            if isinstance(values, dict):
                return values
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except AssertionError as error:  # OmegaConf's own, for one text in quotes that is YAML again
        raise ValueError("no mapping of sections, but one text") from error


class _UnusualYaml(Exception):  # noqa: N818 - no error: OmegaConf reads it, or says what is wrong with it
    pass


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Reads YAML without anchors, tags and merges, as OmegaConf does but a fifteenth of the time.

    A number may be written 1e-3, a date is text, and a key that is there twice is left to OmegaConf to refuse.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        keys = [key.value for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys) or len({*keys}) < len(keys):
            raise _UnusualYaml


_UNUSUAL = re.compile(r"(?<!\w)[&!]\S")
"""What may be an anchor or a tag."""
_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_PlainLoader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), [*"-+0123456789"])
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _PlainLoader.yaml_implicit_resolvers.items()
}
