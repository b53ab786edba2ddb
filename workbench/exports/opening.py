"""Exported files, opened by the programs that they are for: from a file to a function of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from workbench.exports.formats import FACTS
from workbench.models.backbones import build_backbone
from workbench.models.description import check_description
from workbench.specs.compared import backbone_from
from workbench.specs.errors import UserError

ONNX, PROGRAM, SAFETENSORS, OPENVINO = ".onnx", ".pt2", ".safetensors", ".xml"


@dataclass(frozen=True)
class Opened:
    """An exported model.

    Args:
        facts: `classes`, `preprocessing`, `task` and what else was written with it.
        answer: From (N, 3, H, W) images, uint8 if `facts["takes_bytes"]`, else normalised float32, to (N, classes)
            float32 logits.
    """

    facts: dict[str, Any]
    answer: Callable[[np.ndarray], np.ndarray]


def open_export(path: str | Path, threads: int | None = None) -> Opened:
    """Open an exported file in its own runtime.

    Args:
        path: A file that `export` wrote.
        threads: Of the processor; the runtime's own choice if None.

    Raises:
        UserError: No such file, a damaged one, one of another kind, or an ONNX file whose data lies outside its folder.
    """
    path = Path(path)
    openers = {ONNX: _onnx, PROGRAM: _program, SAFETENSORS: _safetensors, OPENVINO: _openvino}
    if not path.is_file() or path.suffix not in openers:
        given = path if path.is_file() else f"{path}: no such file"
        raise UserError.of("export", given, f"a file that `export` wrote ({', '.join(openers)})", "check the path")
    try:
        return openers[path.suffix](path, threads)
    except UserError:
        raise
    except Exception as error:  # every runtime has its own kinds
        given = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError.of(path, given, "a whole file that `export` wrote", "export the model again") from error


def _onnx(path: Path, threads: int | None) -> Opened:
    import onnx
    import onnxruntime

    _check_inside(onnx.load(path, load_external_data=False), path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    return Opened(facts, lambda images: session.run(None, {name: images})[0])


def _check_inside(model: Any, path: Path) -> None:
    """Refuse external data that is anywhere but in the model's own folder.

    Raises:
        UserError: Names the place.
    """
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    folder = path.resolve().parent
    for tensor in _get_all_tensors(model):
        if uses_external_data(tensor):
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if not (folder / place).resolve().is_relative_to(folder) or not place:
                given = f"data of {tensor.name:.80} in {place:.200}"
                raise UserError.of(path, given, f"data inside {folder}", "do not open it: a model needs no such file")


def _program(path: Path, threads: int | None) -> Opened:
    kept = {FACTS: ""}
    program = torch.export.load(path, extra_files=kept)
    module = program.module()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return Opened(json.loads(kept[FACTS]), answer)


def _safetensors(path: Path, threads: int | None) -> Opened:
    with safe_open(path, "pt") as file:
        facts = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    check_description(facts["model"])
    told = facts["model"]
    options = {name: told[name] for name in ("bn_eps", "bn_momentum", "padding", "dropout", "drop_path")}
    net = build_backbone(backbone_from(told["arch"]), told["num_classes"], told["head"], **options)
    net.load_state_dict(tensors)
    net.eval()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(images)).numpy()

    return Opened(facts, answer)


def _openvino(path: Path, threads: int | None) -> Opened:
    import openvino

    model = openvino.Core().read_model(path)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    told = model.get_rt_info([FACTS]).astype(dict) if model.has_rt_info([FACTS]) else {}
    facts = {name: json.loads(text.value if hasattr(text, "value") else text) for name, text in told.items()}
    return Opened(facts, lambda images: compiled(images)[0])
