"""Small copies of sets as a hub holds them, and how tests prepare and read one."""

import dataclasses
import io

import numpy as np
import pytest
from datasets import ClassLabel, Features, Image, Value
from loopback import make_parquet
from PIL import Image as Picture

from workbench.card_files import load_card
from workbench.data import prepared
from workbench.data.preparing import prepare
from workbench.specs.card import DatasetCard, Source
from workbench.specs.errors import UserError


def jpeg(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Picture.fromarray(noise).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def rows_of(seeds, label=lambda seed: seed % 2, **more):
    cells = {name: cell for name, cell in more.items()}
    return [
        {"image": {"bytes": jpeg(s), "path": None}, "label": label(s), **{n: c(s) for n, c in cells.items()}}
        for s in seeds
    ]


def features(names=("cat", "dog"), **more):
    return Features({"image": Image(), "label": ClassLabel(names=list(names)) if names else Value("int64"), **more})


PETS = {
    "data/train-0.parquet": make_parquet(rows_of(range(4)), features()),
    "data/train-1.parquet": make_parquet(rows_of(range(4, 6)), features()),
    "data/test-0.parquet": make_parquet(rows_of(range(50, 53)), features()),
}


def hub_card(repo="me/pets", **more):
    card = {"name": "catsdogs", "layout": "rows", "sources": [Source("hub", id=repo)]}
    return DatasetCard(**{**card, **more})


def unpinned(name):
    """Return a shipped card whose hub copy is taken at any commit: the one on loopback has its own."""
    card = load_card(name)
    return dataclasses.replace(card, sources=[dataclasses.replace(s, revision=None) for s in card.sources])


def read(card, root, path=None):
    folder = prepare(card, root, path)
    return prepared.read_table(folder)[0], prepared.read_facts(folder), prepared.read_manifest(folder)


def error_of(card, root, path=None):
    with pytest.raises(UserError) as error:
        prepare(card, root, path)
    return str(error.value)


def leftovers(root):
    """Return what lies beside a prepared set, but locks."""
    return sorted(p.name for p in (root / "prepared").glob("*") if not p.name.endswith(".lock"))
