"""Recompute: the same numbers bit for bit in less memory, through every way a network is trained."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from workbench import fit, load_recipe
from workbench.models import recompute
from workbench.models.efficientnet import EfficientNet
from workbench.models.staged import stages_before
from workbench.specs.errors import UserError


def trained(net, images, autocast=False, backend=None):
    """Run forward and backward with fixed random numbers; return every gradient and buffer, and the logits."""
    net = copy.deepcopy(net)
    run = torch.compile(net, backend=backend, dynamic=False) if backend else net
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = run(images)
    logits.float().square().sum().backward()
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {**found, **dict(net.named_buffers()), "logits": logits.detach()}


def same(net, images, **how):
    plain = trained(net, images, **how)
    net.recompute = True
    again = trained(net, images, **how)
    net.recompute = False
    assert set(plain) == set(again)
    for name, tensor in plain.items():
        assert torch.equal(tensor, again[name]), name
    return plain


def test_gradients_statistics_and_drop_path_are_the_same_bits_in_every_family_member():
    torch.manual_seed(0)
    for arch in ("tiny", "b0", {"phi": 0.5}):
        net = EfficientNet(arch, 4, dropout=0.5, drop_path=0.5).train()
        found = same(net, torch.randn(3, 3, 64, 64))
        assert int(found["features.0.1.num_batches_tracked"]) == 1
        assert found["features.0.1.running_mean"].abs().sum() > 0


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_paddings_layouts_and_autocast(padding, layout):
    torch.manual_seed(0)
    net = EfficientNet("tiny", 4, padding=padding).train().to(memory_format=layout)
    images = torch.randn(2, 3, 65, 63).contiguous(memory_format=layout)
    for autocast in (False, True):
        same(net, images, autocast=autocast)


@pytest.mark.parametrize("first_trained", ["stage3", "top", "head"])
def test_frozen_stages_and_frozen_batchnorm_stay_as_they_are(first_trained):
    torch.manual_seed(0)
    net = EfficientNet("tiny", 4).train()
    for bn_everywhere in (False, True):
        net.freeze(stages_before(first_trained), bn_everywhere=bn_everywhere)
        found = same(net, torch.randn(2, 3, 64, 64))
        assert "features.0.0.weight" not in found
        assert int(found["features.0.1.num_batches_tracked"]) == 0
        assert int(found["features.8.1.num_batches_tracked"]) == (first_trained != "head" and not bn_everywhere)


@pytest.mark.slow
def test_compiled_graphs_update_statistics_once():
    torch.manual_seed(0)
    net = EfficientNet("tiny", 4, dropout=0.0, drop_path=0.0).train()
    images = torch.randn(2, 3, 64, 64)
    plain = trained(net, images)
    net.recompute = True
    compiled = trained(net, images, backend="aot_eager")
    assert int(compiled["features.8.1.num_batches_tracked"]) == 1
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_two_backward_passes_through_one_graph_leave_the_statistics_alone():
    net = EfficientNet("tiny", 4).train()
    net.recompute = True
    loss = net(torch.randn(2, 3, 64, 64)).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}
    assert 0.0 not in {norm.momentum for norm in norms}


def kept_bytes(net, images):
    storages = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}

    def note(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = net(images)
    del logits
    return sum(storages.values())


def test_it_keeps_less_than_half_and_repeats_no_convolution(monkeypatch):
    net = EfficientNet("b0", 4).train()
    images = torch.randn(2, 3, 96, 96)
    plain = kept_bytes(net, images)
    net.recompute = True
    assert kept_bytes(net, images) < 0.45 * plain
    calls = []
    real = torch.nn.Conv2d._conv_forward

    def finished(self, *inputs):
        result = real(self, *inputs)
        calls.append(self)  # not reached where the repetition stops within
        return result

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", finished)
    net(images).sum().backward()
    squeezing = sum("fc" in name for name, m in net.named_modules() if isinstance(m, torch.nn.Conv2d))
    assert len(calls) == sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) + squeezing  # 1x1 maps: cheap


def test_evaluation_does_not_take_the_longer_way(monkeypatch):
    net = EfficientNet("tiny", 4)
    net.recompute = True
    monkeypatch.setattr(recompute, "checkpoint", None)  # whoever calls it fails
    with torch.no_grad():
        net.train()(torch.randn(2, 3, 64, 64))
    net.eval()(torch.randn(2, 3, 64, 64))
    with pytest.raises(TypeError):
        net.train()(torch.randn(2, 3, 64, 64))


def test_a_fit_with_recompute_ends_at_the_same_weights(tiny_recipe):
    options = ["train.total_epochs=2", "train.ema_decay=0.9", "train.phases=[{train: stage3, epochs: 1}, {train: all}]"]
    options += ["data.resolution=40", "data.eval_resize=40", "model.drop_path=0.4", "train.micro_batch_size=4"]
    runs = [fit(load_recipe(str(tiny_recipe), [*options, *more]).recipe) for more in ([], ["model.recompute=true"])]
    plain, again = (load_file(run.folder / "model.safetensors") for run in runs)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert runs[0].result["selection"] == runs[1].result["selection"]


def test_other_networks_refuse_it_in_words(tiny_recipe):
    with pytest.raises(UserError, match="only EfficientNets have it") as error:
        load_recipe(str(tiny_recipe), ["model.arch=resnet50", "model.recompute=true"])
    assert "set model.recompute=false" in str(error.value)
