"""The recipe: every key with its type, default, unit, meaning and source. Plain dataclasses, no I/O.

The command line's help, `show --keys` and the error texts print the sentences written here. How a recipe file is
found, read and merged is in `workbench/recipe_files.py`; the checks across keys are in `recipe_checks.py`; how one key
is declared, in `recipe_key.py`; the sections `optim` and `schedule`, in `recipe_optim.py`; `train`, in
`recipe_train.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from workbench.specs.card import Source
from workbench.specs.recipe_key import KORNBLITH, PAPER, TPU, key
from workbench.specs.recipe_optim import Optim, Schedule
from workbench.specs.recipe_train import Train


@dataclass
class Expect:
    """What a recipe has been measured to give. Null until measured, never a hoped-for number."""

    metric: str = key("", "Metric, as split/metric.")
    low: float | None = key(None, "Lowest of the measured seeds.", unit="fraction", span=(0, 1))
    high: float | None = key(None, "Highest of the measured seeds.", unit="fraction", span=(0, 1))
    num_seeds: int = key(0, "Number of seeds measured.", span=(0, 1000))
    measured: str = key("", "Where and when it was measured.")


@dataclass
class About:
    """What a recipe claims and where its settings come from."""

    name: str = key("", "Names the run's folder; empty: the recipe file's name.")
    summary: str = key("", "One sentence: what this recipe is for.")
    source: str = key("", "Paper and table, or code, that the settings follow.")
    differs: str = key("", "What differs from the source, and why.")
    expect: Expect | None = key(None, "Measured result; null until measured.")


@dataclass
class Data:
    """Which images, in which splits, in what batches."""

    card: str = key("", "Dataset card: a name from `workbench list datasets`, or a .yaml file.")
    root: str = key("data", "Folder that holds the sets, each in its original layout.")
    prepared_root: str | None = key(None, "Folder of prepared sets; null: prepared/ under data.root.")
    path: str | None = key(
        None, "Your folder, .csv list, or parquet or Arrow files in place of data.root. Pictures stay in their place."
    )
    hub: Source | None = key(
        None, "A dataset on the hub in place of the card's sources: id, config, revision, image, label, splits."
    )
    label_separator: str = key("", "In a .csv list, what stands between several labels; empty: one label an image.")
    download: bool = key(True, "Fetch what is missing, from the card's sources in their order.")
    on_bad_image: str = key(
        "fail",
        "What to do with images that do not decode: stop, or leave them out, listed and counted.",
        choices=("fail", "drop"),
    )
    train_on: str = key(
        "train",
        "What is trained on. With train+selection nothing is left to choose by: fixed length, last weights.",
        source=KORNBLITH,
        choices=("train", "train+selection"),
    )
    holdout_fraction: float = key(
        0.1,
        "Share of train held out for selection, by a hash of each image's id, where the creators made no split.",
        unit="fraction",
        span=(0.01, 0.5),
    )
    train_fraction: float = key(
        1.0,
        "Share of train that is trained on, by a hash of each id: classes alike, a smaller share inside a greater one.",
        unit="fraction",
        span=(0.001, 1),
    )
    allow_partial: bool = key(False, "Run although the set has fewer images than its card says; stamped.")
    batch_size: int = key(256, "Images per optimizer step (effective).", source=KORNBLITH, span=(1, 65536))
    prepare: str = key(
        "auto",
        "Keep pictures decoded and scaled, shared by all runs; auto: raw, jpeg or off by epochs, disk and memory.",
        choices=("auto", "off", "jpeg", "raw"),
    )
    prepare_side: int | None = key(
        None,
        "Shorter side of kept training pictures; null: the larger of evaluation's resize and 8/7 of data.resolution.",
        unit="pixels",
        span=(32, 4096),
    )
    num_workers: int | None = key(None, "Loader processes; null: chosen by the machine.", span=(0, 128))
    resolution: int | None = key(
        None, "Side of training crops; null: as the weights are evaluated.", unit="pixels", span=(32, 2048)
    )
    eval_resolution: int | None = key(
        None, "Side of the evaluation centre crop; null: data.resolution.", unit="pixels", span=(32, 2048)
    )
    eval_resize: int | None = key(
        None,
        "Shorter side before that crop; null: by eval_crop_share.",
        unit="pixels",
        span=(32, 4096),
    )
    eval_crop_share: float | None = key(
        None,
        "Side of that crop over the shorter side, in place of eval_resize; null: the weights' own.",
        unit="fraction",
        span=(0.1, 1),
    )


@dataclass
class Model:
    """Architecture, weights, head."""

    arch: Any = key(
        "b0",
        "b0...b8, l2, tiny, {phi: 1.5}, {width:, depth:, resolution:}, {base: tiny, width: 2}; or as resnet50, "
        "{family: resnet50, width: 2}.",
        source=PAPER,
    )
    weights: str | None = key(
        None,
        "source/name, a .pth or .safetensors file with torchvision's, timm's or lukemelas' keys, or none (random).",
    )
    head: str = key("linear", "Classifier on the pooled features.", choices=("linear", "mlp", "cosine"))
    num_classes: int | None = key(None, "Classes; null: as the card or the files say.", span=(2, 100_000))
    dropout: float | None = key(
        None, "Dropout before the head; null: the architecture's.", unit="fraction", span=(0, 0.99)
    )
    drop_path: float | None = key(
        None,
        "Stochastic depth: drop rate of the last block, growing linearly; null: 0.2, or 0 where arch has none.",
        source=TPU,
        span=(0, 0.99),
    )
    bn_momentum: float | None = key(
        None, "BatchNorm statistics momentum (PyTorch's sense); null: the weights' own.", span=(0, 1)
    )
    bn_eps: float | None = key(
        None,
        "BatchNorm epsilon; null: the weights' own. A file of timm's tf_ line does not tell its 0.001: say it here.",
        span=(1e-8, 0.1),
    )
    padding: str | None = key(
        None,
        "Padding; null: the weights' own. A file of timm's tf_ line does not tell its `same`: say it here.",
        choices=(None, "symmetric", "same"),
    )
    bn_momentum_by_epoch: bool = key(False, "Set the momentum to min(10 / steps per epoch, 0.1).", source=KORNBLITH)
    frozen_bn: bool = key(False, "Keep BatchNorm statistics fixed everywhere while the weights train.")
    recompute: bool = key(False, "Keep a third of the activations and make the others twice: slower, same results.")


@dataclass
class Augment:
    """What is done to training images, beyond the crop to `data.resolution`."""

    crop: str = key("random", "Crops by chance, or center: as evaluation crops.", choices=("random", "center"))
    min_crop_area: float = key(
        0.08, "Least share of the picture that a training crop covers.", source=TPU, span=(0.01, 1)
    )
    max_crop_aspect: float = key(4 / 3, "Widest crop, width over height.", source=TPU, span=(1, 4))
    flip: float = key(0.5, "Probability of a horizontal flip.", unit="fraction", source=KORNBLITH, span=(0, 1))
    policy: str = key(
        "none",
        "Colour and geometry policy; autoaugment is torchvision's, autoaugment_v0 that of the published checkpoints.",
        choices=("none", "randaugment", "autoaugment", "autoaugment_v0", "trivialaugment"),
    )
    num_ops: int = key(2, "RandAugment: operations per image.", source=TPU, span=(1, 10))
    magnitude: int = key(9, "RandAugment: strength, of 30 (torchvision's default).", span=(0, 30))
    cutout: float = key(0.0, "Probability of erasing one rectangle (2 to 33 % of the crop).", span=(0, 1))
    mixup_alpha: float = key(0.0, "Beta parameter of mixup; 0: off.", span=(0, 10))
    cutmix_alpha: float = key(0.0, "Beta parameter of cutmix; 0: off. With both, each batch takes one.", span=(0, 10))
    mix_probability: float = key(
        1.0, "Share of batches that mixup or cutmix touches, where one is on.", unit="fraction", span=(0, 1)
    )
    label_smoothing: float = key(0.0, "Share of the target spread over all classes.", span=(0, 0.9))


@dataclass
class Track:
    """Where a run is written and who is told."""

    runs_dir: str = key("runs", "Folder under which run folders are made.")
    wandb: str = key(
        "auto",
        "Weights & Biases; auto: online where an API key is set, else offline.",
        choices=("auto", "online", "offline", "off"),
    )
    project: str = key("efficientnet-workbench", "W&B project.")
    group: str | None = key(None, "W&B group; null: the W&B sweep's id, else the recipe's name.")
    job_type: str | None = key(None, "W&B job type; null: trial inside a W&B sweep, else fit.")
    tags: list[str] = key([], "W&B tags.")
    notes: str | None = key(None, "W&B notes.")
    log_every_steps: int = key(10, "Steps between rows of metrics.csv.", unit="steps", span=(1, 100_000))


@dataclass
class Recipe:
    """A whole recipe; what `training.run.fit` takes."""

    about: About = field(default_factory=About)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    train: Train = field(default_factory=Train)
    track: Track = field(default_factory=Track)


EXCLUSIVE = (
    ("train", "total_epochs", "total_steps"),
    ("train", "ema_half_life_fraction", "ema_decay"),
    ("schedule", "warmup_epochs", "warmup_steps"),
    ("optim", "weight_decay", "weight_decay_times_lr"),
    ("model", "bn_momentum", "bn_momentum_by_epoch"),
    ("data", "eval_resize", "eval_crop_share"),
)
"""(section, key, key): two ways to say one thing. A later layer that states one of them replaces the other."""
