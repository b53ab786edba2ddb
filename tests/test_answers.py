"""Answers: a network's answering form, pictures decoded ahead, preprocessing given for one evaluation."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from workbench import EfficientNetClassifier, evaluate, load_model
from workbench.cli.app import app
from workbench.models.answering import answering_form
from workbench.models.backbones import build_backbone
from workbench.models.efficientnet import EfficientNet
from workbench.specs.errors import UserError
from workbench.training import answers, machine


def norms_of(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def unsettled(net):
    """Return a network whose BatchNorms do something, as those of a trained one."""
    torch.manual_seed(0)
    for norm in norms_of(net):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    return net.eval()


@pytest.mark.parametrize(
    ("arch", "options", "left"),
    [
        ("tiny", {}, 0),
        ("tiny", {"padding": "same"}, 0),
        ("b0", {"padding": "same"}, 0),
        ("mobilenet_v2", {}, 0),
        ("densenet121", {}, None),
        ("resnet50", {}, None),
        ({"family": "amoebanet_a", "width": 0.1, "depth": 0.2}, {}, None),
    ],
)
def test_the_answering_form_gives_the_same_answers(arch, options, left):
    net = unsettled(build_backbone(arch, 10, **options))
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = net(images)
        for fold, channels_last in ((True, True), (True, False), (False, True)):
            form = answering_form(net, fold=fold, channels_last=channels_last)
            scale = expected.abs().max()
            torch.testing.assert_close(form(images) / scale, expected / scale, rtol=0, atol=1e-5)
            assert len(norms_of(form)) == (left if fold and left is not None else len(norms_of(form)))
            assert bool(fold) == (len(norms_of(form)) < len(norms_of(net)))
            assert not any(parameter.requires_grad for parameter in form.parameters())
    assert all(torch.equal(tensors[name], tensor) for name, tensor in net.state_dict().items()), "the original is kept"
    assert any(parameter.requires_grad for parameter in net.parameters())


def test_channels_last_weights_make_the_maps_channels_last():
    form = answering_form(EfficientNet("tiny", 3))
    maps = form.features(torch.randn(2, 3, 32, 32))
    assert maps.is_contiguous(memory_format=torch.channels_last)


class Scaled(nn.BatchNorm2d):
    def forward(self, maps):
        return 2 * super().forward(maps)


class Backwards(nn.Sequential):
    def forward(self, maps):
        for layer in reversed(self):
            maps = layer(maps)
        return maps


def test_what_only_looks_like_a_pair_is_left_alone():
    conv = nn.Conv2d(4, 4, 3)
    images = torch.randn(2, 4, 8, 8)
    odd = [
        nn.Sequential(conv, Scaled(4)),
        Backwards(conv, nn.BatchNorm2d(4)),
        nn.Sequential(conv, nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(conv, nn.ReLU(), nn.BatchNorm2d(4)),
    ]
    for layers in map(nn.Module.eval, odd):
        for norm in norms_of(layers):
            if norm.running_mean is not None:
                norm.running_mean.fill_(0.3)
        form = answering_form(layers, channels_last=False)
        assert len(norms_of(form)) == 1
        assert torch.equal(form(images), layers(images))


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    sizes = {"resize": 40, "crop": 32}
    made = EfficientNetClassifier("tiny", 4, classes=["a", "b", "c", "d"], preprocessing=sizes)
    rest = [nn.Identity() for _ in made.net.features[1:]]
    made.net.features = nn.Sequential(nn.Conv2d(3, made.net.num_features, 1), *rest)  # colours alone: pictures differ
    return made


def pictures(count):
    rng = np.random.default_rng(0)
    sizes = [(36 + i % 9, 50 - i % 7, 3) for i in range(count)]
    return [rng.integers(0, rng.integers(2, 256, 3), size).astype(np.uint8) for size in sizes]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_every_picture_is_answered_once_and_in_order(classifier, batch_size):
    given = pictures(23)
    found = classifier.predict(given, batch_size)
    classifier.eval()
    with torch.inference_mode():
        logits = torch.cat([classifier(classifier.preprocess(picture)[None]) for picture in given])
    assert len(found) == 23
    assert torch.pdist(logits.softmax(1)).min() > 1e-4
    for answer, row in zip(found, logits.softmax(1), strict=True):
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
        torch.testing.assert_close(torch.tensor([answer[name] for name in "abcd"]), row)


def test_most_probable_keeps_as_many_as_asked_for(classifier):
    whole = classifier.predict(pictures(5))
    values, order = answers.most_probable(classifier, pictures(5), 2, top=2)
    assert values.shape == order.shape == (5, 2)
    for answer, row, numbers in zip(whole, values.tolist(), order.tolist(), strict=True):
        assert list(answer.items())[:2] == [("abcd"[i], pytest.approx(p)) for p, i in zip(row, numbers, strict=True)]
    assert answers.most_probable(classifier, [], 2, top=9)[0].shape == (0, 4)
    assert classifier.predict([]) == []


def test_the_mode_comes_back_and_a_bad_picture_is_named(classifier, tmp_path):
    classifier.train()
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad\.jpg"):
        classifier.predict([*pictures(3), bad, *pictures(3)], 2)
    assert classifier.training
    classifier.predict(pictures(2))
    assert classifier.training
    assert any(parameter.requires_grad for parameter in classifier.parameters()), "predict leaves it trainable"


def test_only_a_few_batches_are_decoded_ahead(classifier, monkeypatch):
    opened, most = [], []
    real = answers.load_image
    monkeypatch.setattr(answers, "load_image", lambda picture: opened.append(1) or real(picture))
    forward = classifier.net.forward
    monkeypatch.setattr(classifier.net, "forward", lambda images: most.append(len(opened)) or forward(images))
    classifier.predict(pictures(60), 4)
    assert len(most) == 15
    assert all(seen <= 4 * (number + 1 + answers.BATCHES_AHEAD) for number, seen in enumerate(most))
    assert len(opened) == 60


def test_answers_are_set_up_by_device_and_precision(monkeypatch):
    kept = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: kept.append(1))
    plain = EfficientNetClassifier("tiny", 4)
    assert not next(plain.parameters()).is_contiguous(memory_format=torch.channels_last)
    nets = {}
    for device, precision, stated in (
        ("cpu", "32-true", False),
        ("cpu", "bf16-mixed", False),
        ("gpu", "32-true", True),
    ):
        model = EfficientNetClassifier("tiny", 4)
        answers.set_to_answer(model, device, precision, stated)
        nets[device, precision] = model.net
    assert len(kept) == 2
    assert [bool(norms_of(net)) for net in nets.values()] == [False, True, True]
    assert all(next(net.parameters()).is_contiguous(memory_format=torch.channels_last) for net in nets.values())


def test_arrays_of_any_memory_order_are_answered_and_other_mistakes_are_told(classifier, tmp_path):
    (picture,) = pictures(1)
    turned = picture[..., ::-1]  # as from BGR; its strides are negative
    assert classifier.predict([turned]) == classifier.predict([turned.copy()])
    file = tmp_path / "one.png"
    Image.fromarray(picture).save(file)
    for one in (str(file), file, picture):
        with pytest.raises(UserError, match=r"a list of pictures(.|\n)*\[picture\]"):
            classifier.predict(one)
    odd = [picture[..., 0], np.dstack([picture, picture[..., :1]]), picture.astype(np.float32), picture[:0]]
    for array in odd:
        with pytest.raises(UserError, match=r"array of (.|\n)*\(height, width, 3\) of uint8") as error:
            classifier.predict([array])
        assert f"{array.shape} of {array.dtype}" in str(error.value)
        with pytest.raises(UserError):
            classifier.preprocess(array)


# ---- evaluate: preprocessing of one evaluation, and keys that do nothing --------------------------------------------


def test_stored_preprocessing_is_the_default_and_given_sizes_act(finished_run, monkeypatch):
    from workbench.data.image_rows import ImageRows

    seen = []
    real = ImageRows.__getitem__
    monkeypatch.setattr(ImageRows, "__getitem__", lambda rows, i: seen.append(real(rows, i)) or seen[-1])
    own = {"resize": 32, "crop": 32}
    for given, sizes in (
        ([], own),
        (["data.eval_resolution=40", "data.eval_resize=48"], {"resize": 48, "crop": 40}),
        (["--data.eval_resize=44"], {"resize": 44, "crop": 32}),
        (["data.eval_crop_share=0.5"], {"resize": 64, "crop": 32}),
    ):
        seen.clear()
        found = evaluate(finished_run.folder, "selection", given)
        used, stored = found["preprocessing"], found["own_preprocessing"]
        assert {key: used[key] for key in own} == sizes, given
        assert {key: stored[key] for key in own} == own
        assert {key: used[key] for key in used if key not in own} == {
            key: stored[key] for key in used if key not in own
        }
        assert {tuple(item[0].shape) for item in seen} == {(3, sizes["crop"], sizes["crop"])}
        # and by our own hands, with the plain network
        net = load_model(finished_run.folder)
        images = torch.stack([item[0] for item in seen])
        targets = torch.stack([item[1] for item in seen])
        with torch.inference_mode():
            mean, std = (torch.tensor(stored[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
            logits = net((images / 255 - mean) / std)
        assert found["scores"]["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), abs=1e-5)


def test_sizes_that_contradict_are_refused(finished_run, tmp_path):
    with pytest.raises(UserError, match=r"32, smaller than the evaluation crop of 40[\s\S]*raise data\.eval_resize"):
        evaluate(finished_run.folder, "selection", ["data.eval_resolution=40"])
    # a model that says another crop than its recipe, which states none, and than tiny's own 64
    model = tmp_path / "model"
    shutil.copytree(finished_run.folder, model)
    description = json.loads((model / "model.json").read_text())
    description["preprocessing"].update(resize=96, crop=80)
    description["provenance"]["recipe"]["data"].update(resolution=None, eval_resize=None)
    (model / "model.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"70, below the crop of 80[\s\S]*80 or more"):
        evaluate(model, "selection", ["data.eval_resize=70"])
    used = evaluate(model, "selection", ["data.eval_resolution=40"])["preprocessing"]
    assert (used["resize"], used["crop"]) == (48, 40)  # the model's own share


def test_keys_that_do_nothing_here_are_refused_all_at_once(finished_run):
    given = ["optim.lr=3", "--model.arch=b3", "data.resolution=64", "train.total_epochs=9", "data.batch_size=4"]
    given += ["data.prepare=raw", "data.prepare_side=300"]
    with pytest.raises(UserError) as error:
        evaluate(finished_run.folder, "selection", [*given, "train.precision=fp32", "data.num_workers=0"])
    told = str(error.value)
    assert len(error.value.problems) == 7
    for text in given:
        assert text.removeprefix("--").partition("=")[0] + ", which only a fit acts on" in told
    assert "say data.eval_resolution" in told
    assert "train.device" in told
    with pytest.raises(UserError) as error:
        evaluate(finished_run.folder, "selection", ["optim.nonsense=3", "optim.lr=3", "data.eval_resolution=40"])
    assert [problem.given for problem in error.value.problems] == [
        "optim.lr, which only a fit acts on",
        "optim.nonsense = 3",
        "32, smaller than the evaluation crop of 40",
    ]
    with pytest.raises(UserError, match=r"train\.channels_last, which only a GPU's answers depend on"):
        evaluate(finished_run.folder, "selection", ["train.channels_last=false", "train.device=cpu"])
    assert evaluate(finished_run.folder, "selection", ["train.precision=fp32", "train.device=cpu"])["scores"]["n"] == 12


def test_evaluate_keeps_freed_memory_as_fit_does(finished_run, monkeypatch):
    kept = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: kept.append(1))
    evaluate(finished_run.folder, "selection")
    assert kept == [1]


def test_the_command_says_how_pictures_were_prepared(finished_run):
    runner = CliRunner()
    plain = runner.invoke(app, ["evaluate", str(finished_run.folder), "--split", "selection"])
    assert "pictures: shorter side to 32, centre crop 32, as the model says" in plain.output
    sizes = ["data.eval_resolution=40", "data.eval_resize=48"]
    changed = runner.invoke(app, ["evaluate", str(finished_run.folder), "--split", "selection", *sizes])
    assert "shorter side to 48, centre crop 40, by these keys; the model says shorter side to 32" in changed.output
    as_json = runner.invoke(app, ["evaluate", str(finished_run.folder), "--split", "selection", "--json", *sizes])
    assert json.loads(as_json.output)["preprocessing"]["crop"] == 40


# ---- predict --------------------------------------------------------------------------------------------------------


def test_predict_answers_as_the_plain_network_does(finished_run, folder_set, tmp_path, monkeypatch):
    from workbench.cli import predict_verb

    runner, out = CliRunner(), tmp_path / "answers.csv"
    arguments = ["predict", str(finished_run.folder), str(folder_set / "test"), "--top", "2"]
    done = runner.invoke(app, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "images/s" not in done.stderr
    lines = out.read_text().splitlines()
    assert len(lines) == 1 + 12 * 2
    model = EfficientNetClassifier.load(finished_run.folder)
    files = sorted((folder_set / "test").rglob("*.png"))
    for number, (file, answer) in enumerate(zip(files, model.predict(files), strict=True)):
        for rank, (name, probability) in enumerate(list(answer.items())[:2], 1):
            path, told_rank, told_name, told, _ = lines[2 * number + rank].split(",")
            assert (path, int(told_rank), told_name) == (str(file), rank, name)
            assert float(told) == pytest.approx(probability, abs=1e-5)
    monkeypatch.setattr(predict_verb, "TOLD_SECONDS", 0.0)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))  # no UTF-8
    shutil.copy(files[0], odd)
    assert runner.invoke(app, ["predict", str(finished_run.folder), str(odd), "--out", str(out)]).exit_code == 0
    assert out.read_text().splitlines()[1].startswith(f"{tmp_path}/caf\\xe9.png,1,")
    slow = runner.invoke(app, arguments)
    assert re.search(r"12 pictures in \d+\.\d s: \d+\.\d images/s", slow.stderr)
    assert "images/s" not in slow.stdout
    assert len(slow.stdout.splitlines()) == 24
