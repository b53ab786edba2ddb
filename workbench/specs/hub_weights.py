"""The EfficientNets that timm keeps on the Hugging Face hub, as plain data; `weights.py` makes entries of them.

Two lines: `tf_efficientnet_bX` are ports of Google's own checkpoints (TensorFlow's SAME padding, BatchNorm epsilon
1e-3), `efficientnet_bX` were trained in PyTorch (symmetric padding, 1e-5). Sources: crop, share, colour statistics and
classes from `default_cfgs` of timm 1.0.31 (a test compares every row where timm is installed), at the size timm tests
them with; top-1 from timm's results/results-imagenet.csv at aa4b5850 (0173a139 for b5.sw_in12k_ft, the README of timm
for b1.ra4), at that same size; licence from the same configuration. A commit or hash is given only where public code
names it for that very repository.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE = "model.safetensors"
LICENCE = "apache-2.0"


@dataclass(frozen=True)
class HubRow:
    """One repository of the hub.

    Args:
        arch: The architecture.
        tag: How it was trained, as in the repository's name.
        crop: Side of the evaluation crop, pixels.
        share: Crop over shorter side after resizing (timm's `crop_pct`).
        top1: ImageNet top-1 at that size, percent, or None.
        tf: Whether it is a port from TensorFlow.
        half: Whether mean and standard deviation are 0.5, in place of ImageNet's.
        squash: Whether pictures are resized to a square without keeping their shape.
        num_classes: Outputs of its classifier.
        revision: Commit, where known.
        sha256: Hash of its file, where known.
    """

    arch: str
    tag: str
    crop: int
    share: float
    top1: float | None
    tf: bool = True
    half: bool = False
    squash: bool = False
    num_classes: int = 1000
    revision: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The repository's name without the architecture: one name for all sizes."""
        return f"timm/{'tf_' if self.tf else ''}efficientnet.{self.tag}"

    @property
    def repository(self) -> str:
        """`owner/name` on the hub."""
        return f"timm/{'tf_' if self.tf else ''}efficientnet_{self.arch}.{self.tag}"


# Native crop and its share of the shorter side: b0...b8 of Google's ports.
_NATIVE = {
    "b0": (224, 0.875),
    "b1": (240, 0.882),
    "b2": (260, 0.89),
    "b3": (300, 0.904),
    "b4": (380, 0.922),
    "b5": (456, 0.934),
    "b6": (528, 0.942),
    "b7": (600, 0.949),
    "b8": (672, 0.954),
}
# Top-1 in percent; Inception preprocessing, AutoAugment (the paper's), AdvProp, RandAugment, Noisy Student with JFT.
_PORTS = {
    "in1k": {"b0": 76.542, "b1": 78.546, "b2": 79.612, "b3": 80.878, "b4": 82.598, "b5": 83.170},
    "aa_in1k": {
        **{"b0": 76.882, "b1": 78.840, "b2": 80.074, "b3": 81.648},
        **{"b4": 83.040, "b5": 83.696, "b6": 84.124, "b7": 84.424},
    },
    "ap_in1k": {
        **{"b0": 77.100, "b1": 79.288, "b2": 80.300, "b3": 81.842, "b4": 83.246},
        **{"b5": 84.258, "b6": 84.794, "b7": 85.132, "b8": 85.358},
    },
    "ra_in1k": {"b5": 83.834, "b7": 84.926, "b8": 85.344},
    "ns_jft_in1k": {
        **{"b0": 78.680, "b1": 81.388, "b2": 82.412, "b3": 84.054},
        **{"b4": 85.156, "b5": 86.096, "b6": 86.476, "b7": 86.850},
    },
}
# (arch, tag) -> commit and SHA-256, each seen in public code beside the repository's name.
_PINNED = {
    ("b0", "in1k"): {
        "revision": "8186ca4217f9c67824ebe7566008bdc69976d15a",
        "sha256": "276dfe076f3fca30c2f7bf1e44039e395e6de50248caaa159d16530699f16995",
    },
    ("b3", "ns_jft_in1k"): {"revision": "fd765843d68fcbba2757c8cf89e810efc350bc7d"},
}

HUB_ROWS: tuple[HubRow, ...] = (
    *(
        HubRow(arch, tag, *_NATIVE[arch], top1, half=tag == "ap_in1k", **_PINNED.get((arch, tag), {}))
        for tag, scores in _PORTS.items()
        for arch, top1 in scores.items()
    ),
    HubRow("l2", "ns_jft_in1k", 800, 0.96, 88.360),
    HubRow("l2", "ns_jft_in1k_475", 475, 0.936, 88.246),
    HubRow("b0", "ra_in1k", 224, 0.875, 77.698, tf=False),
    HubRow("b0", "ra4_e3600_r224_in1k", 256, 1.0, 79.364, tf=False, half=True),
    HubRow("b1", "ft_in1k", 256, 1.0, 78.806, tf=False),
    HubRow("b1", "ra4_e3600_r240_in1k", 288, 1.0, 81.440, tf=False, half=True),
    HubRow("b2", "ra_in1k", 288, 1.0, 80.612, tf=False),
    HubRow("b3", "ra2_in1k", 320, 1.0, 82.296, tf=False, revision="0366a75518620e0f2077789202073759f2d61393"),
    HubRow("b4", "ra2_in1k", 384, 1.0, 83.468, tf=False),
    HubRow("b5", "sw_in12k", 416, 0.95, None, tf=False, num_classes=11821),
    HubRow("b5", "sw_in12k_ft_in1k", 448, 1.0, 85.892, tf=False, squash=True),
)
