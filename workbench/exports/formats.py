"""The forms a model is exported to: one function each writes it, and knows nothing of whether it is right."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.models.answering import answering_form
from workbench.models.staged import StagedNet
from workbench.specs.errors import UserError

INPUT, OUTPUT, FACTS = "images", "logits", "workbench"
_TRACED = 2
"""Images that a network is traced with: with one, torch.export takes the batch for a constant."""


@dataclass(frozen=True)
class Format:
    """One form.

    Args:
        file: Name of its file.
        needs: Modules that write and open it.
        is_rounded: Whether it computes in less than float32.
        title: For people.
    """

    file: str
    needs: tuple[str, ...]
    is_rounded: bool
    title: str


FORMATS = {
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), False, "ONNX, float32"),
    "program": Format("model.pt2", (), False, "torch.export program"),
    "safetensors": Format("weights.safetensors", (), False, "weights and facts in one safetensors file"),
    "openvino": Format("model.xml", ("onnx", "onnxscript", "openvino"), False, "OpenVINO IR, float32"),
    "int8": Format("model_int8.xml", ("onnx", "onnxscript", "openvino", "nncf"), True, "OpenVINO IR, 8-bit integers"),
}


def check_installed(names: list[str]) -> None:
    """Refuse formats whose libraries are missing.

    Raises:
        UserError: With the pip line that brings them.
    """
    lacking = {module for name in names for module in FORMATS[name].needs if importlib.util.find_spec(module) is None}
    if lacking:
        given = f"{', '.join(sorted(lacking))}: not installed"
        raise UserError.of("export", given, "the extra `export`", "pip install 'efficientnet-workbench[export]'")


class Answers(nn.Module):
    """A network from one input to its logits, with normalising inside if asked for.

    Args:
        net: The network, BatchNorm folded.
        takes_bytes: The input is (N, 3, H, W) uint8 RGB; else float32, normalised.
    """

    def __init__(self, net: StagedNet, takes_bytes: bool):
        super().__init__()
        self.net, self.takes_bytes = net, takes_bytes
        if takes_bytes:
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (net.preprocessing.mean, net.preprocessing.std))
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, classes) float32 logits."""
        return self.net(images.float() * self.scale + self.shift if self.takes_bytes else images)


def answers_of(net: StagedNet, takes_bytes: bool) -> Answers:
    """Return what is exported of a network: a copy, folded, on the CPU."""
    return Answers(answering_form(net, channels_last=False).cpu(), takes_bytes).eval()


def example(answers: Answers, count: int = _TRACED) -> Tensor:
    """Return an input of zeros."""
    side = answers.net.preprocessing.crop
    return torch.zeros(count, 3, side, side, dtype=torch.uint8 if answers.takes_bytes else torch.float32)


def write_onnx(answers: Answers, path: Path, facts: dict[str, Any]) -> None:
    """Write one ONNX file with a free batch size; `facts` become its metadata, a JSON text each."""
    import onnx

    with _quiet():
        program = torch.onnx.export(
            answers,
            (example(answers),),
            dynamo=True,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(model, path)


def write_program(answers: Answers, path: Path, facts: dict[str, Any]) -> None:
    """Write a torch.export program with a free batch size."""
    shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    with _quiet():
        program = torch.export.export(answers, (example(answers),), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={FACTS: json.dumps(facts)})


def write_openvino(answers: Answers, path: Path, facts: dict[str, Any]) -> None:
    """Write OpenVINO's IR: .xml and .bin beside it."""
    _save_openvino(_through_onnx(answers, path, facts), path, facts)


def write_int8(answers: Answers, path: Path, facts: dict[str, Any], calibration: list[np.ndarray]) -> None:
    """Write OpenVINO's IR in 8 bits, by NNCF's post-training quantization.

    Args:
        answers: What is exported.
        path: The .xml.
        facts: Kept in it.
        calibration: Inputs (1, 3, H, W) by which ranges are chosen.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use: nothing here talks to a network unless asked
    with _quiet(), contextlib.redirect_stdout(io.StringIO()):
        import nncf

        model = _through_onnx(answers, path, facts)
        options = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(calibration)}
        small = nncf.quantize(model, nncf.Dataset(calibration), fast_bias_correction=True, **options)
    _save_openvino(small, path, facts)


def _through_onnx(answers: Answers, path: Path, facts: dict[str, Any]) -> Any:
    """Return OpenVINO's model of what is exported; its own converter is left alone, for it reports its use."""
    import openvino

    between = path.with_suffix(".onnx.part")
    try:
        write_onnx(answers, between, facts)
        return openvino.Core().read_model(between.read_bytes())
    finally:
        between.unlink(missing_ok=True)


def _save_openvino(model: Any, path: Path, facts: dict[str, Any]) -> None:
    import openvino

    for name, value in facts.items():
        model.set_rt_info(json.dumps(value), [FACTS, name])
    openvino.save_model(model, path, compress_to_fp16=False)


def write_safetensors(answers: Answers, path: Path, facts: dict[str, Any], net: StagedNet) -> None:
    """Write a network's own tensors, under torchvision's names, nothing folded; `facts` go into the file's header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, path, {name: json.dumps(value) for name, value in facts.items()})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters' warnings off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


WRITERS = {"onnx": write_onnx, "program": write_program, "openvino": write_openvino}
"""Those that take what is exported, a path and facts alone."""
