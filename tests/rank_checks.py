"""What tests/test_ranks.py runs in each of two processes; started as torchrun starts them. Writes what it found."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn

from workbench import fit, load_recipe
from workbench.data.image_rows import Batch
from workbench.data.rank_rows import evaluation_loader
from workbench.models.backbones import build_backbone
from workbench.training import monitor, rank_norms, ranks, results
from workbench.training.interrupts import Interrupted


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


def synchronised_batchnorm(rank):
    """Largest differences from one process that sees both halves: outputs, gradients, running statistics."""
    images = 3 + torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    whole, shared = network(0), network(0)
    rank_norms.synchronise(shared)
    expected = whole(images)
    expected.square().sin().mean().backward()
    mine = slice(4 * rank, 4 * rank + 4)
    output = shared(images[mine])
    output.square().sin().mean().backward()
    gradients = [ranks.averaged(parameter.grad) for parameter in shared.parameters()]
    found = {
        "output": (output - expected[mine]).abs().max(),
        "gradient": max((g - p.grad).abs().max() for g, p in zip(gradients, whole.parameters(), strict=True)),
        "statistics": max((a - b).abs().max() for a, b in zip(shared.buffers(), whole.buffers(), strict=True)),
    }
    return {name: float(value) for name, value in found.items()}


def steps_of_a_network(rank):
    """Largest difference of any tensor from one process after four steps, in float64: nothing hides in rounding."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    targets, nets = torch.arange(8) % 3, []
    for part in (slice(None), slice(4 * rank, 4 * rank + 4)):
        torch.manual_seed(0)
        net = build_backbone("tiny", 3, drop_path=0.0, dropout=0.0, bn_momentum=0.1).double().train()
        net.recompute = part != slice(None)
        if part != slice(None):
            rank_norms.synchronise(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[part]), targets[part]).backward()
            for parameter in net.parameters() if part != slice(None) else ():
                parameter.grad = ranks.averaged(parameter.grad)
            optimizer.step()
        nets.append(net.state_dict())
    return max(float((nets[0][key] - nets[1][key]).abs().max()) for key in nets[0])


def averaged_statistics(rank):
    """Running statistics of two BatchNorms, of which one is frozen, after averaging them over ranks."""
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
    for norm in net:
        norm.running_mean.fill_(float(rank))
    rank_norms.average_statistics(net)
    return [norm.running_mean.tolist() for norm in net]


def parts(rank):
    """Rows that come back, of as many as there are, for fewer and more rows than ranks."""
    found = {}
    for count in (1, 2, 21):
        rows = torch.arange(count)
        empty = lambda: Batch(torch.zeros(0, 1), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0)  # noqa: E731
        loader = evaluation_loader(rows, (rank, 2), empty, batch_size=4, collate_fn=torch.stack)
        mine = [batch.index if isinstance(batch, Batch) else batch for batch in loader]
        found[count] = ranks.gathered(torch.cat(mine)).tolist()
    return found


def digest(net):
    content = hashlib.sha256()
    for tensor in net.state_dict().values():
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def watch_weights():
    """Return a list that fills with hashes of the weights that are scored."""
    seen, run_split = [], results.run_split

    def watched(trainer, classifier, data, split):
        seen.append(digest(classifier.net))
        return run_split(trainer, classifier, data, split)

    results.run_split = watched
    return seen


def fit_stopped(recipe):
    """Fit until the first checkpoint is written; return the run folder."""
    write = monitor.LastCheckpoint.write

    def write_and_stop(self, trainer):
        write(self, trainer)
        raise KeyboardInterrupt

    monitor.LastCheckpoint.write = write_and_stop
    try:
        fit(recipe)
    except Interrupted as stop:
        return stop.folder
    finally:
        monitor.LastCheckpoint.write = write


def main(task):
    torch.set_num_threads(1)
    task = Path(task)
    plans = json.loads((task / "plans.json").read_text())
    rank, seen, found = ranks.launched().rank, watch_weights(), {"folders": {}, "lines": {}}
    with ranks.joined(2, 1, "cpu"):
        found["batchnorm"], found["averaged"] = synchronised_batchnorm(rank), averaged_statistics(rank)
        found["parts"], found["network"] = parts(rank), steps_of_a_network(rank)
        for name, (recipe, stops, resume) in plans.items():
            recipe = load_recipe(recipe).recipe
            resume = fit_stopped(recipe) if stops else resume and Path(resume)
            found["folders"][name] = str(fit(recipe, resume=resume).folder)
        hashes = [None, None]
        distributed.all_gather_object(hashes, seen)
    found["equal_weights"] = hashes[0] == hashes[1] and len(seen)
    (task / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
