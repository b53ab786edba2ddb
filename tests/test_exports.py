"""Exports: every form answers as the model does in its own runtime, and none stays that does not."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import paint

from workbench import load_model
from workbench.cli.app import app
from workbench.data.transforms import normalise
from workbench.exports import exporting, formats
from workbench.exports.exporting import ExportOptions, export
from workbench.exports.opening import open_export
from workbench.specs.errors import UserError

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """The folder with the forms that take no seconds, and exports.json's rows."""
    out = tmp_path_factory.mktemp("exported")
    rows = export(finished_run.folder, ["onnx", "program", "safetensors"], out, ExportOptions(count=5))
    return out, rows


def pictures(net, count):
    generator = torch.Generator().manual_seed(3)
    side = net.preprocessing.crop
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def refused(call, *given, **options):
    with pytest.raises(UserError) as error:
        call(*given, **options)
    return str(error.value)


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("file", ["model.onnx", "model.pt2", "weights.safetensors"])
def test_a_form_gives_the_models_logits_for_any_number_of_images(exported, finished_run, file, count):
    net = load_model(finished_run.folder)
    images = normalise(pictures(net, count), net.preprocessing)
    with torch.inference_mode():
        expected = net(images)
    found = open_export(exported[0] / file, threads=1).answer(images.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_onnx_alone_runs_it_and_says_what_it_is(exported, finished_run):
    net = load_model(finished_run.folder)
    session = onnxruntime.InferenceSession(exported[0] / "model.onnx", providers=["CPUExecutionProvider"])
    told = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert tuple(told["classes"]) == net.classes
    assert told["preprocessing"]["mean"] == pytest.approx(net.preprocessing.mean)
    assert told["takes_bytes"] is False
    assert [one.name for one in session.get_inputs()] == ["images"]
    images = normalise(pictures(net, 2), net.preprocessing)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(found, net(images).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_preprocessing_inside_takes_bytes(finished_run, tmp_path):
    (row,) = export(finished_run.folder, ["onnx"], tmp_path, ExportOptions(takes_bytes=True, count=3))
    assert row["with_preprocessing"] is True
    net, session = load_model(finished_run.folder), onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = pictures(net, 3)
    (found,) = session.run(None, {"images": images.numpy()})
    expected = net(normalise(images, net.preprocessing)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_was_compared_is_kept(exported):
    out, rows = exported
    kept = json.loads((out / "exports.json").read_text())
    assert kept == rows
    assert [row["format"] for row in kept] == ["onnx", "program", "safetensors"]
    for row in kept:
        assert row["top1_agreement"] == 1.0
        assert row["max_probability_difference"] < 1e-5
        assert row["images"] == 5
        assert "selection" in row["of"]
        assert row["bytes"] == (out / row["file"]).stat().st_size
    assert sorted(path.name for path in out.iterdir()) == sorted(["exports.json", *(row["file"] for row in rows)])


def test_a_form_that_answers_otherwise_does_not_stay(finished_run, tmp_path, monkeypatch):
    real = exporting.formats.WRITERS["onnx"]

    def off(answers, path, facts):
        answers.net.classifier[-1].bias.data[0] += 0.5
        real(answers, path, facts)

    monkeypatch.setitem(exporting.formats.WRITERS, "onnx", off)
    told = refused(export, finished_run.folder, ["onnx"], tmp_path, ExportOptions(count=4))
    assert "export onnx" in told
    assert "apart" in told
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_names_the_pip_line(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "nncf" else real(name))
    told = refused(formats.check_installed, ["onnx", "int8"])
    assert "nncf" in told
    assert "not installed" in told
    assert "pip install 'efficientnet-workbench[export]'" in told
    formats.check_installed(["onnx"])


def test_damaged_missing_and_foreign_files_are_refused(tmp_path):
    assert "no such file" in refused(open_export, tmp_path / "model.onnx")
    for name in ("model.onnx", "model.pt2", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"not a model")
        assert "export the model again" in refused(open_export, tmp_path / name)
    (tmp_path / "model.tflite").write_bytes(b"")
    assert ".onnx" in refused(open_export, tmp_path / "model.tflite")


@pytest.mark.parametrize("place", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", ""])
def test_onnx_data_outside_the_folder_is_not_opened(exported, tmp_path, place):
    model = onnx.load(exported[0] / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.onnx").write_bytes(model.SerializeToString())
    assert "data inside" in refused(open_export, tmp_path / "in" / "model.onnx")


def test_a_model_without_its_set_needs_pictures(finished_run, tmp_path):
    net = load_model(finished_run.folder)
    from workbench.models.portable import save_model

    facts = {"head": "linear", "task": "single_label", "classes": net.classes, "provenance": {}}
    save_model(tmp_path / "bare", net, preprocessing=net.preprocessing, **facts)
    told = refused(export, tmp_path / "bare", ["program"], tmp_path / "out")
    assert "--images photos/" in told
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number, number)
    command = ["export", str(tmp_path / "bare"), "--format", "program", "--images", str(tmp_path / "photos")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "2 images: 3 given pictures" in done.output
    assert done.output.splitlines()[-1] == str(tmp_path / "bare" / "exports")
    assert (tmp_path / "bare" / "exports" / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--format", "tflite"], "onnx, program"), (["--format", ","], "some")]
)
def test_a_wrong_format_is_named(finished_run, arguments, says):
    with pytest.raises(UserError, match=says):
        CliRunner().invoke(app, ["export", str(finished_run.folder), *arguments], catch_exceptions=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_openvino_and_eight_bits(finished_run, tmp_path):
    pytest.importorskip("nncf", reason="the extra `export` is not installed")
    rows = export(finished_run.folder, ["openvino", "int8"], tmp_path, ExportOptions(count=5, agreement=0.0))
    assert rows[0]["max_probability_difference"] < 1e-4
    assert 0 < rows[1]["max_probability_difference"] < 1
    assert rows[1]["bytes"] < rows[0]["bytes"]
    opened = open_export(tmp_path / "model_int8.xml", threads=1)
    assert tuple(opened.facts["classes"]) == load_model(finished_run.folder).classes
    if rows[1]["top1_agreement"] < 1:  # a network of two epochs hardly tells its classes apart
        told = refused(export, finished_run.folder, ["int8"], tmp_path / "b", ExportOptions(count=5, agreement=1.0))
        assert "the same class on" in told
        assert list((tmp_path / "b").iterdir()) == []
