"""`push`: what arrives on a hub and at W&B, and every way in which they can refuse."""

import json

import huggingface_hub
import loopback
import pytest
import torch
from click.testing import CliRunner
from hub_writes import TOKEN, WritableHub
from loopback import Fault
from wandb_stub import WandbStub

from workbench.cli.app import app
from workbench.specs.errors import UserError
from workbench.training import pushing
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.pushing import push


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "my_model"
    torch.manual_seed(0)
    made = EfficientNetClassifier("tiny", 3, classes=["a", "b", "c"], preprocessing={"resize": 40, "crop": 32})
    made.calibration = {"temperature": 1.25, "split": "selection", "n": 200}
    made.save(folder)
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path, request):
    monkeypatch.setattr(loopback, "HubServer", WritableHub)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(pushing, "SILENCE_SECONDS", 3.0)
    return request.getfixturevalue("serve")({"me/taken": {"model.json": b"{}", ".gitattributes": b""}})


def refused(*given, **options):
    with pytest.raises(UserError) as error:
        push(*given, **options)
    return str(error.value)


def test_a_model_arrives_whole_with_its_card_and_private(hub, model):
    (model / "result.json").write_text("{}")
    told = CliRunner().invoke(app, ["push", str(model), "hub:me/flowers", "--license", "mit"])
    assert told.exit_code == 0, told.output
    assert hub.created["me/flowers"]["visibility"] == "private"
    arrived = hub.repos["me/flowers"]
    assert set(arrived) == {".gitattributes", "README.md", "model.json", "model.safetensors", "result.json"}
    assert arrived["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert arrived["model.json"] == (model / "model.json").read_bytes()
    assert hub.metadata["license"] == "mit"
    assert 'load_model("hub:me/flowers")' in arrived["README.md"].decode()
    assert f"load it with hub:me/flowers@{hub.commit('me/flowers')}" in told.stdout
    assert not (model / "README.md").exists()


def test_what_was_pushed_loads_again(hub, model):
    push(model, "hub:me/flowers")
    back = EfficientNetClassifier.load("hub:me/flowers")
    assert back.classes == ("a", "b", "c")
    assert back.calibration["temperature"] == 1.25
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(back(images), EfficientNetClassifier.load(model)(images))


def test_public_is_asked_for_and_a_card_of_ones_own_is_sent(hub, model):
    (model / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    push(model, "hub:me/open", public=True)
    assert hub.created["me/open"]["visibility"] == "public"
    assert hub.repos["me/open"]["README.md"].endswith(b"mine\n")
    assert "--license with a card that is there" in refused(model, "hub:me/other", licence="mit")
    assert "me/other" not in hub.repos


def test_a_repository_that_holds_something_needs_update(hub, model):
    text = refused(model, "hub:me/taken")
    assert "me/taken, which exists and holds 1 files" in text
    assert "--update" in text
    assert set(hub.repos["me/taken"]) == {"model.json", ".gitattributes"}
    push(model, "hub:me/taken", update=True)
    assert hub.repos["me/taken"]["model.json"] == (model / "model.json").read_bytes()
    assert "me/taken" not in hub.created


def test_an_empty_repository_is_taken(hub, model):
    hub.repos["me/empty"] = {".gitattributes": b""}
    push(model, "hub:me/empty")
    assert "model.safetensors" in hub.repos["me/empty"]


def test_a_hub_that_refuses_is_told_in_words(hub, model, monkeypatch, tmp_path):
    text = refused(model, "hub:somebody/flowers")
    assert "answers 403" in text
    assert "under somebody" in text
    assert "choose an owner that is you" in text
    for token in ("hf_wrong0wrong0wrong0wrong0wrong0wrong0", "nonsense"):
        monkeypatch.setenv("HF_TOKEN", token)
        text = refused(model, "hub:me/flowers")
        assert "answers 401" in text
        assert "hf auth login" in text
        assert token not in text
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no token of the hub" in refused(model, "hub:me/flowers")
    assert "me/flowers" not in hub.repos


@pytest.mark.parametrize(("match", "status", "said"), [("/commit/", 413, "too large"), ("/commit/", 429, "wait")])
def test_a_commit_that_fails_leaves_nothing(hub, model, match, status, said):
    hub.faults.append(Fault(match, "status", status=status, times=9))
    text = refused(model, "hub:me/flowers")
    assert f"answers {status}" in text
    assert said in text
    assert set(hub.repos["me/flowers"]) == {".gitattributes"}
    hub.faults.clear()
    push(model, "hub:me/flowers")  # again, without --update: there was nothing in it


def test_bytes_that_arrived_otherwise_are_noticed(hub, model):
    hub.spoil = lambda data: data[:-1] + b"!"
    assert "model.safetensors is not there as it was sent" in refused(model, "hub:me/flowers")


def test_a_hub_that_is_not_there_is_told(hub, model):
    hub.__exit__(None, None, None)
    text = refused(model, "hub:me/flowers")
    assert "check the network and HF_ENDPOINT" in text


def test_other_words_and_damaged_models_are_refused_before_anything_is_sent(hub, model):
    for word in ("hub:flowers", "me/flowers", "hub:a/b/c", "wandb:a/b", "hub:../x", "wandb:a/b/c:v1", ""):
        assert "hub:owner/name or wandb:entity/project/name" in refused(model, word)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "SHA-256 differs" in refused(model, "hub:me/flowers")
    assert not hub.asked


@pytest.fixture
def server(monkeypatch):
    import wandb

    wandb.teardown()
    with WandbStub() as stub:
        for name, value in {**stub.environment(), "WANDB_INIT_TIMEOUT": "5"}.items():
            monkeypatch.setenv(name, value)
        yield stub
        wandb.teardown()


def test_a_model_arrives_at_wandb_as_an_artifact(server, model):
    told = push(model, "wandb:tester/flowers/best", aliases=["production"])
    (artifact,) = server.artifacts
    assert (artifact.name, artifact.type, artifact.committed) == ("best", "model", True)
    assert set(artifact.aliases) >= {"latest", "production"}
    assert artifact.files["model.json"] == (model / "model.json").read_bytes()
    assert artifact.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert b"wandb:tester/flowers/best:latest" in artifact.files["README.md"]
    assert "load it with wandb:tester/flowers/best:v0" in told
    (run,) = server.runs.values()
    assert (run.project, run.job_type) == ("flowers", "push")


def test_a_wandb_that_refuses_is_told_in_words(server, model, monkeypatch):
    server.fault = lambda operation, count: 401 if operation in ("Viewer", "UpsertBucket") else None
    text = refused(model, "wandb:tester/flowers/best")
    assert "W&B tester/flowers/best" in text
    assert "wandb login" in text
    assert not server.artifacts
    assert json.loads((model / "model.json").read_text())["format"] == 1
