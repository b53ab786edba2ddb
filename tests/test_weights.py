"""Loading weights: what is taken, what is refused, what is said."""

import dataclasses
import functools
import hashlib
import http.server
import json
import pickle
import threading

import pytest
import torch
from safetensors.torch import save_file

from workbench.models import weights as loading
from workbench.models.efficientnet import EfficientNet
from workbench.models.weights import load_weights
from workbench.specs.architectures import ARCHS
from workbench.specs.errors import UserError
from workbench.specs.weights import WEIGHTS, facts_of, find_weights


@pytest.fixture
def source() -> EfficientNet:
    torch.manual_seed(1)
    return EfficientNet("tiny", 1000)


def test_backbone_only_file_loads_and_the_head_is_new(tmp_path, source):
    path = tmp_path / "backbone.pth"
    torch.save({k: v for k, v in source.state_dict().items() if k.startswith("features.")}, path)
    model = EfficientNet("tiny", 5)
    report = load_weights(model, str(path))
    assert torch.equal(model.features[0][0].weight, source.features[0][0].weight)
    assert report.new == ("classifier.1.weight", "classifier.1.bias")
    assert report.skipped == ()
    assert len(report.loaded) + 2 == len(model.state_dict())
    assert "2 new (classifier.1.weight, classifier.1.bias)" in str(report)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_whole_file_gives_its_head_only_to_the_same_task(tmp_path, source, ending):
    path = tmp_path / f"whole.{ending}"
    torch.save(source.state_dict(), path) if ending == "pth" else save_file(source.state_dict(), path)
    same = EfficientNet("tiny", 1000)
    assert load_weights(same, str(path)).new == ()
    assert torch.equal(same.classifier[1].weight, source.classifier[1].weight)
    report = load_weights(EfficientNet("tiny", 5), str(path))
    assert set(report.skipped) == {"classifier.1.weight", "classifier.1.bias"}


def test_weights_of_another_architecture_are_named(tmp_path):
    path = tmp_path / "b0.pth"
    torch.save(EfficientNet("b0", 10).state_dict(), path)
    with pytest.raises(UserError, match="these look like b0: set model.arch=b0"):
        load_weights(EfficientNet("b1", 10), str(path))


def test_weights_with_unknown_keys_stop_the_run(tmp_path, source):
    path = tmp_path / "odd.pth"
    torch.save({**source.state_dict(), "features.9.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="1 unknown"):
        load_weights(EfficientNet("tiny", 5), str(path))


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize("content", ["missing", "truncated", "hostile", "not tensors"])
def test_damaged_and_hostile_files_are_refused(tmp_path, source, content, capsys):
    path = tmp_path / "file.pth"
    if content == "truncated":
        torch.save(source.state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "hostile":
        path.write_bytes(pickle.dumps(Hostile()))
    elif content == "not tensors":
        torch.save({"epoch": 3}, path)
    with pytest.raises(UserError) as error:
        load_weights(EfficientNet("tiny", 5), str(path))
    assert str(path) in str(error.value)
    assert "never be printed" not in capsys.readouterr().out


def test_unknown_names_get_the_nearest_and_the_right_architectures():
    with pytest.raises(UserError, match="did you mean 'torchvision/imagenet1k_v1'"):
        find_weights("torchvision/imagnet1k_v1", "b0")
    with pytest.raises(UserError, match="exists for b1"):
        find_weights("torchvision/imagenet1k_v2", "b0")


def test_published_rows_equal_torchvisions_own_table():
    import torchvision

    rows = [entry for entry in WEIGHTS if entry.name.startswith("torchvision/")]
    assert len(rows) == 9
    for entry in rows:
        enum = getattr(torchvision.models, f"EfficientNet_{entry.arch.upper()}_Weights")
        theirs = enum[entry.name.split("/")[1].upper()]
        transforms = theirs.transforms()
        assert entry.url == theirs.url
        assert theirs.url.endswith(f"-{entry.sha256_prefix}.pth")
        assert (entry.preprocessing.resize, entry.preprocessing.crop) == (
            *transforms.resize_size,
            *transforms.crop_size,
        )
        assert entry.preprocessing.interpolation == transforms.interpolation.value
        assert entry.top1 == pytest.approx(theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        with torch.device("meta"):
            built = getattr(torchvision.models, f"efficientnet_{entry.arch}")()
        assert (entry.bn_eps, entry.bn_momentum) == pytest.approx(
            (built.features[0][1].eps, built.features[0][1].momentum)
        )


def test_a_local_file_gets_the_batchnorm_and_preprocessing_of_torchvisions_weights():
    facts = facts_of("somewhere/b0.pth", ARCHS["b0"])
    assert (facts.bn_eps, facts.preprocessing.resize, facts.preprocessing.crop) == (1e-5, 256, 224)
    assert facts_of("b5.safetensors", ARCHS["b5"]).bn_eps == 1e-3
    assert facts_of(None, ARCHS["b0"]).bn_eps == 1e-3


@pytest.fixture
def server(tmp_path):
    """A web server on loopback that serves a folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.mark.parametrize("honest", [True, False])
def test_published_weights_are_downloaded_and_checked_against_their_hash(
    tmp_path, server, source, honest, monkeypatch, capfd
):
    folder, address = server
    torch.save(source.state_dict(), folder / "part")
    digest = hashlib.sha256((folder / "part").read_bytes()).hexdigest()[:8] if honest else "0" * 8
    (folder / "part").rename(folder / f"tiny-{digest}.pth")
    entry = dataclasses.replace(WEIGHTS[0], name="test/tiny", arch="tiny", url=f"{address}/tiny-{digest}.pth")
    monkeypatch.setattr("workbench.specs.weights.WEIGHTS", (entry,))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    model = EfficientNet("tiny", 5)
    if honest:
        load_weights(model, "test/tiny")
        assert torch.equal(model.features[0][0].weight, source.features[0][0].weight)
    else:
        with pytest.raises(UserError, match="invalid hash value"):
            load_weights(model, "test/tiny")
    assert [p.suffix for p in (tmp_path / "cache" / "checkpoints").iterdir()] == ([".pth"] if honest else [])


def test_a_dead_server_is_reported_with_file_and_remedy(tmp_path, monkeypatch):
    entry = dataclasses.replace(WEIGHTS[0], url="http://127.0.0.1:9/efficientnet.pth")
    monkeypatch.setattr("workbench.specs.weights.WEIGHTS", (entry,))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="put that file into"):
        load_weights(EfficientNet("b0", 5), entry.name)


def test_embedded_weights_are_small_described_and_loadable():
    file = loading.EMBEDDED / "tiny_blossoms.safetensors"
    description = json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size <= 2 * 2**20
    assert hashlib.sha256(file.read_bytes()).hexdigest() == description["sha256"]
    assert description["recipe"]["data"]["card"] == "blossoms_upstream"
    report = load_weights(EfficientNet("tiny", 16), "embedded/blossoms")
    assert report.new == ("classifier.1.weight", "classifier.1.bias")


def test_the_real_backbone_loads_whole(shared):
    path = shared / "weights" / "efficientnet_b0_features.pth"
    report = load_weights(EfficientNet("b0", 102), str(path))
    assert len(report.loaded) == 358
    assert report.skipped == ()
