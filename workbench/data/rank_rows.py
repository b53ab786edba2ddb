"""Which rows of an evaluation each of several processes takes: every row one process, none twice, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, DistributedSampler

from workbench.data.image_rows import Batch


class RankRows(DistributedSampler):
    """The positions of one process's part of a dataset, one run of neighbours.

    torch's own sampler repeats rows until all parts are equal, which counts them twice. That this is one of its kind
    keeps a Trainer from dividing the part once more.

    Args:
        count: Rows of all processes.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, count: int, rank: int, world_size: int):
        super().__init__(range(count), num_replicas=world_size, rank=rank, shuffle=False)
        self.part = range(count * rank // world_size, count * (rank + 1) // world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.part)

    def __len__(self) -> int:
        return len(self.part)


def evaluation_loader(
    dataset: Dataset, ranks: tuple[int, int], empty: Callable[[], Batch], **options: Any
) -> DataLoader:
    """Return a loader of a process's part of a dataset.

    Args:
        dataset: Rows of all processes.
        ranks: (this process, number of processes).
        empty: Makes a batch of no rows. A process that has no part gets it: every one must take part in what follows.
        options: Passed on to `DataLoader`.
    """
    rank, world_size = ranks
    if world_size == 1:
        return DataLoader(dataset, **options)
    sampler = RankRows(len(dataset), rank, world_size)
    if not len(sampler):
        return DataLoader(range(1), collate_fn=lambda _: empty(), sampler=RankRows(1, 0, 1))
    return DataLoader(dataset, sampler=sampler, **options)
