"""Weights from the hub and from foreign files: fetched, checked, recognised, and what is said when that fails."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch
from loopback import Fault
from safetensors.torch import save
from torchvision.transforms.v2.functional import resize

from workbench import EfficientNetClassifier, load_model, load_recipe
from workbench.data.transforms import eval_transform
from workbench.models import weights as loading
from workbench.models.efficientnet import EfficientNet
from workbench.models.key_names import convert
from workbench.models.weights import facts_of_weights, load_weights
from workbench.specs.architectures import ARCHS
from workbench.specs.errors import UserError
from workbench.specs.weights import WEIGHTS, Preprocessing, find_weights
from workbench.training.recipe_numbers import network_options

REPOSITORY, FILE = "timm/tf_efficientnet_tiny.test", "model.safetensors"
NAME = "timm/tf_efficientnet.test"


@pytest.fixture
def source() -> EfficientNet:
    torch.manual_seed(1)
    net = EfficientNet("tiny", 1000, padding="same")
    for name, tensor in net.state_dict().items():  # as unlike a fresh network as trained ones are
        if tensor.dim() > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5)
        elif tensor.dim() == 1:
            tensor.uniform_(*(-0.3, 0.3) if name.endswith(("bias", "mean")) else (0.6, 1.4))
    return net


@pytest.fixture
def content(source) -> bytes:
    return save(convert(source.state_dict(), source.scaling, "torchvision", "timm"))


@pytest.fixture
def entry(monkeypatch):
    """A published entry of the tiny architecture, the only one; changed through `entry(sha256_prefix=...)`."""
    real = find_weights("timm/tf_efficientnet.aa_in1k", "b0")
    real = dataclasses.replace(real, name=NAME, arch="tiny", repository=REPOSITORY)

    def put(**changes):
        monkeypatch.setattr("workbench.specs.weights.WEIGHTS", (dataclasses.replace(real, **changes),))

    put()
    monkeypatch.setattr(loading, "TIMEOUT_SECONDS", 1.0)
    return put


def cached(tmp_path) -> list[str]:
    """Return the names of what the client's cache holds as this file."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("blobs/*"))


def fetches(hub) -> int:
    return sum(method == "GET" and "/resolve/" in path for method, path, _ in hub.log)


def test_weights_come_from_the_hub_once_and_then_from_its_cache(serve, entry, content, source, tmp_path):
    hub = serve({REPOSITORY: {FILE: content}})
    model = EfficientNet("tiny", 1000, padding="same")
    report = load_weights(model, NAME)
    assert (report.new, report.skipped) == ((), ())
    images = torch.randn(1, 3, 64, 65)
    assert torch.equal(model.eval()(images), source.eval()(images))
    assert "names of timm, same padding, BatchNorm epsilon 0.001" in str(report)
    asked = len(hub.log)
    load_weights(EfficientNet("tiny", 5), NAME)
    assert len(hub.log) == asked
    assert fetches(hub) == 1


def test_the_whole_name_of_a_repository_is_understood():
    entry = find_weights("timm/tf_efficientnet_b4.ns_jft_in1k", "b4")
    assert entry is find_weights("timm/tf_efficientnet.ns_jft_in1k", "b4")
    with pytest.raises(UserError, match="exists for b4"):
        find_weights("timm/tf_efficientnet_b4.ns_jft_in1k", "b5")
    with pytest.raises(UserError, match="did you mean 'timm/tf_efficientnet_b4.ns_jft_in1k'"):
        find_weights("timm/tf_efficientnet_b4.ns_jtf_in1k", "b4")
    with pytest.raises(UserError, match="did you mean 'timm/tf_efficientnet.aa_in1k'"):
        find_weights("timm/tf_efficientnet.aa", "b4")
    with pytest.raises(UserError, match="exists for b0, b1, b2, b3, b4, b5, b6, b7\n"):
        find_weights("timm/tf_efficientnet.aa_in1k", "b8")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_wrong_bytes_are_removed_and_fetched_once_more(serve, entry, content, tmp_path, known, times):
    digest = hashlib.sha256(content).hexdigest()
    entry(sha256_prefix=digest if known else "")
    hub = serve({REPOSITORY: {FILE: content}})
    hub.faults = [Fault("/resolve/", "wrong", times)]
    if times == 1:
        load_weights(EfficientNet("tiny", 5), NAME)
        assert cached(tmp_path) == [digest]
    else:
        with pytest.raises(UserError, match="came twice with other bytes than its hash says") as error:
            load_weights(EfficientNet("tiny", 5), NAME)
        assert digest in str(error.value)
        assert cached(tmp_path) == []
    assert fetches(hub) == 2


def test_a_file_that_is_not_the_pinned_one_is_refused_and_removed(serve, entry, content, tmp_path):
    entry(sha256_prefix="0" * 64)
    serve({REPOSITORY: {FILE: content}})
    with pytest.raises(UserError, match="0" * 64):
        load_weights(EfficientNet("tiny", 5), NAME)
    assert cached(tmp_path) == []


def test_a_file_that_rotted_in_the_cache_is_fetched_anew(serve, entry, content, tmp_path):
    hub = serve({REPOSITORY: {FILE: content}})
    load_weights(EfficientNet("tiny", 5), NAME)
    (blob,) = (tmp_path / "cache").rglob("blobs/*")
    blob.write_bytes(content[:-4] + b"rust")
    load_weights(EfficientNet("tiny", 5), NAME)
    assert fetches(hub) == 2
    assert blob.read_bytes() == content


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("", "status", 99, status=404, code="RepoNotFound"), "404"),
        (Fault("", "status", 99, status=503), "503"),
        (Fault("/api/", "stall", 99, share=0), "timed out"),
        pytest.param(Fault("/resolve/", "stall", 99, share=0), "timed out", marks=pytest.mark.slow),
        (Fault("/resolve/", "cut", 99), "peer closed connection"),
        (Fault("", "html", 99), "not the hub that answers, but perhaps a network's log-in page"),
    ],
    ids=["404", "503", "silent", "stall", "cut", "portal"],
)
def test_a_hub_that_fails_is_reported_with_reason_and_remedy(serve, entry, content, tmp_path, fault, reason):
    hub = serve({REPOSITORY: {FILE: content}})
    hub.faults = [fault]
    with pytest.raises(UserError, match=reason) as error:
        load_weights(EfficientNet("tiny", 5), NAME)
    (problem,) = error.value.problems
    assert problem.given.startswith(f"{NAME} for tiny: ")
    assert problem.allowed == f"{FILE} of {REPOSITORY} on the hub"
    assert f"`hf download {REPOSITORY} {FILE}`" in problem.remedy
    assert str(tmp_path / "cache") in problem.remedy
    assert cached(tmp_path) == [] or all(name.endswith(".incomplete") for name in cached(tmp_path))


@pytest.mark.parametrize("kind", ["stall", "cut"])
def test_a_hub_that_stumbles_once_still_gives_the_weights(serve, entry, content, kind):
    hub = serve({REPOSITORY: {FILE: content}})
    hub.faults = [Fault("/resolve/", kind)]
    assert load_weights(EfficientNet("tiny", 5), NAME).new == ("classifier.1.weight", "classifier.1.bias")


def test_what_the_hub_does_not_have_is_said(serve, entry, content):
    serve({REPOSITORY: {"other.bin": content}})
    with pytest.raises(UserError, match=f"has no {FILE}, only other.bin"):
        load_weights(EfficientNet("tiny", 5), NAME)
    entry(revision="1" * 40)
    with pytest.raises(UserError, match="at " + "1" * 40):
        load_weights(EfficientNet("tiny", 5), NAME)


def test_without_a_network_the_cache_is_enough_and_its_lack_is_said(serve, entry, content, monkeypatch):
    import huggingface_hub

    hub = serve({REPOSITORY: {FILE: content}})
    load_weights(EfficientNet("tiny", 5), NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.faults = [Fault("", "status", 99)]
    load_weights(EfficientNet("tiny", 5), NAME)
    entry(repository="timm/tf_efficientnet_tiny.other")
    with pytest.raises(UserError, match="offline|503"):
        load_weights(EfficientNet("tiny", 5), NAME)


# ---- files with foreign names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("style", ["torchvision", "timm", "lukemelas"])
def test_a_local_file_is_recognised_by_its_names(tmp_path, source, style, counters):
    tensors = convert(source.state_dict(), source.scaling, "torchvision", style)
    tensors = {name: tensor for name, tensor in tensors.items() if counters or "num_batches" not in name}
    path = tmp_path / "foreign.pth"
    torch.save(tensors, path)
    model = EfficientNet("tiny", 1000, padding="same")
    report = load_weights(model, str(path))
    assert (len(report.loaded), report.skipped, report.new) == (len(tensors), (), ())
    assert f"names of {style}" in str(report)
    images = torch.randn(1, 3, 64, 65)
    assert torch.equal(model.eval()(images), source.eval()(images))
    assert facts_of_weights(str(path), ARCHS["tiny"]).padding == ("same" if style == "lukemelas" else "symmetric")


def test_what_is_taken_of_a_foreign_file_of_each_line(tmp_path):
    small = {"_conv_stem.weight": torch.zeros(1)}
    torch.save(small, tmp_path / "lukemelas.pth")
    facts = facts_of_weights(str(tmp_path / "lukemelas.pth"), ARCHS["b0"])
    assert (facts.padding, facts.bn_eps, facts.bn_momentum) == ("same", 1e-3, pytest.approx(0.01))
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "timm.pth")
    facts = facts_of_weights(str(tmp_path / "timm.pth"), ARCHS["b0"])
    assert (facts.padding, facts.bn_eps) == ("symmetric", 1e-5)
    facts = facts_of_weights(str(tmp_path / "timm.pth"), ARCHS["l2"])
    assert (facts.padding, facts.bn_eps, facts.preprocessing.crop) == ("same", 1e-3, 800)


@pytest.mark.parametrize("style", ["torchvision", "timm", "lukemelas"])
def test_missing_extra_and_misshapen_tensors_are_listed(tmp_path, source, style):
    tensors = source.state_dict()
    gone, bent = "features.2.0.block.1.0.weight", "features.8.1.bias"
    del tensors[gone]
    tensors[bent] = torch.zeros(3)
    tensors = convert(tensors, source.scaling, "torchvision", style) | {"extra.weight": torch.zeros(1)}
    torch.save(tensors, tmp_path / "odd.pth")
    with pytest.raises(UserError) as error:
        load_weights(EfficientNet("tiny", 5), str(tmp_path / "odd.pth"))
    text = str(error.value)
    for part in (
        f"1 missing ({gone})",
        f"1 of another shape ({bent} (3,) for (320,))",
        "1 unknown (extra.weight)",
    ):
        assert part in text


@pytest.mark.parametrize("style", ["torchvision", "timm", "lukemelas"])
def test_weights_of_another_architecture_are_named_whatever_their_names(tmp_path, style):
    other = EfficientNet("b1", 10)
    torch.save(convert(other.state_dict(), other.scaling, "torchvision", style), tmp_path / "b1.pth")
    with pytest.raises(UserError, match="these look like b1: set model.arch=b1") as error:
        load_weights(EfficientNet("b0", 10), str(tmp_path / "b1.pth"))
    assert "more)" in str(error.value)  # not hundreds of names


# ---- padding, epsilon and preprocessing travel ----------------------------------------------------------------------


def test_padding_and_preprocessing_travel_through_checkpoint_and_portable_model(serve, entry, content, tmp_path):
    import lightning

    serve({REPOSITORY: {FILE: content}})
    half = Preprocessing(64, 64, mean=(0.5,) * 3, std=(0.5,) * 3, squash=True)
    entry(preprocessing=half)
    model = EfficientNetClassifier("tiny", 1000, NAME).eval()
    assert (model.net.padding, model.preprocessing) == ("same", half)
    images = torch.randn(2, 3, 64, 65)
    expected = model(images)
    other = EfficientNet("tiny", 1000)
    load_weights(other, NAME)
    assert not torch.allclose(other.eval()(images), expected, rtol=1e-2, atol=0)  # symmetric padding is another network

    trainer = lightning.Trainer(max_steps=0, logger=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = EfficientNetClassifier.load_from_checkpoint(tmp_path / "x.ckpt").eval()
    assert torch.equal(again(images), expected)

    model.save(tmp_path / "saved")
    assert torch.equal(load_model(tmp_path / "saved")(images), expected)
    loaded = EfficientNetClassifier.load(tmp_path / "saved")
    assert (loaded.net.padding, loaded.preprocessing) == ("same", half)
    facts = facts_of_weights(str(tmp_path / "saved" / FILE), ARCHS["tiny"])
    assert (facts.padding, facts.preprocessing) == ("same", half)


def test_a_portable_model_from_before_padding_is_symmetric_and_a_wrong_one_is_named(tmp_path):
    EfficientNetClassifier("tiny", 2).save(tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    assert description.pop("padding") == "symmetric"
    path.write_text(json.dumps(description))
    assert load_model(tmp_path).padding == "symmetric"
    path.write_text(json.dumps({**description, "padding": "odd"}))
    with pytest.raises(UserError, match="padding is 'odd'"):
        load_model(tmp_path)


def test_a_recipe_may_state_padding_and_epsilon(tiny_recipe):
    stated = load_recipe(str(tiny_recipe), ["model.padding=same", "model.bn_eps=0.002"]).recipe
    assert {"padding": "same", "bn_eps": 0.002}.items() <= network_options(stated, 10).items()
    silent = load_recipe(str(tiny_recipe), ["model.padding=null"]).recipe
    assert not {"padding", "bn_eps"} & set(network_options(silent, 10))
    with pytest.raises(UserError, match="symmetric | same"):
        load_recipe(str(tiny_recipe), ["model.padding=valid"])
    with pytest.raises(ValueError, match="there are symmetric, same"):
        EfficientNet("tiny", 2, padding="valid")


def test_squashing_takes_the_whole_picture():
    picture = torch.randint(0, 256, (3, 40, 80), dtype=torch.uint8)
    seen = eval_transform(Preprocessing(32, 32, "bilinear", squash=True))(picture)
    assert torch.equal(seen, resize(picture, [32, 32], antialias=True))
    cropped = eval_transform(Preprocessing(32, 32, "bilinear"))(picture)
    assert torch.equal(cropped, resize(picture, [32, 64], antialias=True)[:, :, 16:48])


def test_every_hub_row_can_be_used_as_it_stands():
    rows = [entry for entry in WEIGHTS if entry.repository]
    assert len(rows) == 45
    for row in rows:
        assert row.preprocessing.resize >= row.preprocessing.crop >= 32
        assert row.top1 is None or 0.7 < row.top1 < 0.9
        assert (row.padding, row.bn_eps) == (("same", 1e-3) if "tf_" in row.name else ("symmetric", 1e-5))
        assert row.revision is None or len(row.revision) == 40
        assert len(row.sha256_prefix) in (0, 64)
    assert len({(row.name, row.arch) for row in rows}) == len(rows)
