"""The model card: metadata that a hub reads, facts that follow from the run, text that cannot act."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import metadata_load

from workbench.cli.app import app
from workbench.models.portable import read_description
from workbench.specs.errors import UserError
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.model_card import inline, model_card, write_card

RESULT = {
    "recipe": "pets_b0",
    "arch": "b0",
    "weights": "timm/tf_efficientnet.ns_jft_in1k",
    "dataset": "pets",
    "metric": "mean_per_class",
    "selection": None,
    "test": {"loss": 0.5, "top1": 0.91, "top5": 0.99, "mean_per_class": 0.9, "n": 3669, "interval95": [0.89, 0.91]},
    "published": {"card": "pets", "arch": "b4", "accuracy": 0.948, "source": "a table"},
    "stamps": ["12 images were left out"],
    "source": "hub somebody/pets at 0123456789ab",
    "steps": 100,
    "epochs": 2.0,
}
RECIPE = {
    "about": {"name": "pets_b0"},
    "data": {"card": "pets", "batch_size": 32, "root": "/home/anna/secret"},
    "model": {"arch": "b0", "weights": RESULT["weights"]},
    "optim": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
    "train": {"seed": 7},
}
PROVENANCE = {"recipe": RECIPE, "result": RESULT, "environment": {"workbench": "1.2.3", "torch": "9.9"}}


def card_of(folder, arch="b0", classes=("cat", "dog"), task="single_label", **provenance):
    made = EfficientNetClassifier("tiny", len(classes), classes=list(classes), task=task)
    made.provenance = provenance
    made.save(folder)
    folder, description = read_description(folder)
    arch = {"name": arch, "width": 1.0, "depth": 1.0, "resolution": 224, "dropout": 0.2}
    return model_card(folder, {**description, "arch": arch})


def test_a_card_of_a_real_run_says_what_its_files_say(finished_run):
    folder, description = read_description(finished_run.folder)
    text = model_card(folder, description)
    result = finished_run.result
    for split in ("selection", "test"):
        scores = result[split]
        low, high = scores["interval95"]
        assert f"| {split} | {scores['n']} | top1 (the dataset's own) | {100 * scores['top1']:.2f} % |" in text
        assert f"| {100 * low:.2f} to {100 * high:.2f} % |" in text
    assert "36 training images, local files" in text
    assert "began from: random initialisation" in text
    assert "blue, green, red" in text
    assert f"{result['epochs']} epochs, {result['steps']} steps of 8 images" in text
    assert str(folder.parent) not in text
    assert "colours" not in text, "no path of the machine"


def test_the_metadata_is_what_a_hub_reads(tmp_path):
    text = card_of(tmp_path / "m", **PROVENANCE)
    (tmp_path / "README.md").write_text(text)
    metadata = metadata_load(tmp_path / "README.md")
    data = ModelCardData(**metadata, ignore_metadata_errors=False)
    assert (data.license, data.pipeline_tag) == ("unknown", "image-classification")
    assert data.datasets == ["somebody/pets"]
    assert data.base_model == "timm/tf_efficientnet_b0.ns_jft_in1k"
    found = {result.metric_type: result for result in data.eval_results}
    assert found["accuracy"].metric_value == 0.91
    own = found["mean_per_class"]
    assert (own.metric_value, own.dataset_type, own.dataset_split) == (0.9, "somebody/pets", "test")
    assert own.metric_args == {"n": 3669, "interval95": [0.89, 0.91]}
    assert own.metric_name == "mean_per_class, n = 3669, 95 % interval 0.8900 to 0.9100"
    assert "loss" not in found


def test_the_text_says_where_all_came_from(tmp_path):
    text = card_of(tmp_path / "m", **PROVENANCE)
    for said in (
        "| test | 3669 | mean_per_class (the dataset's own) | 90.00 % | 89.00 to 91.00 % |",
        "The paper prints 94.8 % (a table)",
        "data: Oxford-IIIT Pets; hub somebody/pets at 0123456789ab",
        "optimizer: sgd, peak rate 0.1, weight decay 0.0",
        "notes: 12 images were left out",
        "made with: workbench 1.2.3, torch 9.9",
        "- seed: 7",
    ):
        assert said in text, said
    assert "anna" not in text
    assert "not calibrated" in text


def test_a_file_of_weights_gives_its_name_and_no_path(tmp_path):
    result = {**RESULT, "weights": "/home/anna/w.pth"}
    text = card_of(tmp_path / "m", recipe=RECIPE, result=result)
    assert "began from: w.pth" in text
    assert "anna" not in text
    assert "base_model" not in text


def test_selection_alone_is_called_what_it_is(tmp_path):
    result = {**RESULT, "selection": RESULT["test"], "test": None}
    text = card_of(tmp_path / "m", recipe=RECIPE, result=result)
    assert "No test split was opened" in text
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["split"] == "selection"
    again = {**RESULT, "test": {**RESULT["test"], "openings": 3}}
    assert "opened more than once" in card_of(tmp_path / "n", recipe=RECIPE, result=again)


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    text = card_of(tmp_path / "m", arch="b0", task="multi_label")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert set(metadata) == {"license", "library_name", "pipeline_tag", "tags"}
    assert "Not known: the model's file holds no scores." in text
    for said in (
        "data: not known; source not known",
        "optimizer: not known",
        "began from: not known",
        "none may apply",
    ):
        assert said in text, said
    assert "None" not in text


def test_names_cannot_act_in_the_card(tmp_path):
    names = [
        "<script>alert(1)</script>",
        "[x](http://evil)",
        "a|b",
        "![i](http://evil/p.png)",
        "*b* `c`",
        "http://e.org",
    ]
    result = {**RESULT, "dataset": "x\n---\nlicense: mit", "stamps": ["# head\n\n| a |"]}
    text = card_of(tmp_path / "m", classes=names, recipe=RECIPE, result=result)
    body = text.split("\n---\n", 1)[1]
    for live in (
        r"(?<!\\)<script",
        r"(?<!\\)\]\(",
        r"!\[",
        r"(?<!\\)\| a ",
        r"\n# head",
        "http://",
        r"(?<!\\)\*b",
        "\n---",
    ):
        assert not re.search(live, body), live
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    assert inline("a_b\x1b[2J  c") == "a\\_b\\\\x1b\\[2J c"


@pytest.mark.parametrize("odd", [{"test": 3}, {"metric": None, "published": []}, {"published": 1}])
def test_a_provenance_of_another_form_is_the_users_business(tmp_path, odd):
    if odd == {"metric": None, "published": []}:
        odd = {**odd, "test": {**RESULT["test"], "interval95": "x"}, "metric": "top1"}
    with pytest.raises(UserError, match="a provenance of another form"):
        card_of(tmp_path / "m", recipe=RECIPE, result={**RESULT, **odd})


def test_the_verb_writes_a_card_and_no_edit_is_lost(tmp_path):
    made = EfficientNetClassifier("tiny", 2, classes=["a", "b"])
    made.save(tmp_path)
    runner = CliRunner()
    for _ in range(2):  # what it would write itself is no edit
        done = runner.invoke(app, ["card", str(tmp_path), "--license", "mit"])
        assert done.output == f"{tmp_path / 'README.md'}\n", done.exception
    assert yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])["license"] == "mit"
    (tmp_path / "README.md").write_text("mine")
    folder, description = read_description(tmp_path)
    with pytest.raises(UserError, match="perhaps edited by hand") as error:
        write_card(folder, description, "mit")
    assert "--overwrite" in str(error.value)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert runner.invoke(app, ["card", str(tmp_path), "--overwrite"]).exit_code == 0
    assert "mine" not in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "model.json").read_text())["classes"] == ["a", "b"]
