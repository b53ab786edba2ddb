"""The commands of README.md and docs/: what stands in their blocks, as a shell would split it."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


def blocks(page):
    """Return (language, text) of a page's fenced blocks."""
    return [match.groups() for match in BLOCK.finditer(page.read_text())]


def commands():
    """Return (page, words) of each workbench command in a block or between backquotes, without prompts and comments."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for language, block in blocks(page) if language in ("", "bash") for line in joined(block)]
        lines += [" ".join(span.split()) for span in re.findall(r"`((?:python -m )?workbench [^`]+)`", text)]
        found += [(page.name, words) for line in lines if (words := words_of(line))]
    return found


def joined(block):
    """Return a block's lines, those that end in a backslash with the next."""
    return block.replace("\\\n", " ").splitlines()


def words_of(line):
    """Return the words after `workbench` of a line, or None if it is no such command."""
    match = re.match(r"^(?:\$ |srun |\w+=\$\(|.*\| )?(?:python -m )?workbench (.*)$", line)
    if not match:
        return None
    words = [word for word in shlex.split(match[1].replace("| tail -1)", ""), comments=True) if word != "$SMALL"]
    return words[: words.index(">")] if ">" in words else words
