"""The order of training images and the seed of every random choice, as functions of (seed, epoch, image).

Nothing here has a state that could be lost: any number of workers, ranks or restarts gives the same batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on all parts and looks unrelated for neighbours."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextlib.contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Seed torch's CPU generator inside the block and put its state back afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derive_seed(*parts))
    try:
        yield
    finally:
        torch.set_rng_state(state)


class Place(NamedTuple):
    """What a loader is asked for: one training image of an epoch.

    Args:
        epoch: Seeds its augmentation, with the position.
        position: Of the training split.
        first: Position of the first image of its effective batch, which seeds the mixing.
        is_before: It is here only as the mixing partner of the image that follows.
    """

    epoch: int
    position: int
    first: int
    is_before: bool = False


class EpochBatches:
    """A batch sampler: yields micro-batches of places for one rank.

    Every effective batch is a slice of the epoch's permutation; it is cut into micro-batches, and those among the
    ranks. The last, incomplete effective batch is dropped. If it follows a Trainer, it begins where that stands within
    the epoch.

    Args:
        num_images: Images in the training split.
        batch_size: Effective batch: images per optimizer step over all ranks.
        micro_batch_size: Images per forward pass of one rank; times ranks it must divide `batch_size`.
        seed: The recipe's seed.
        rank: This process.
        world_size: Number of processes.
        is_mixed: Images are mixed with the one before them in the effective batch, the first with the last: a part of
            that batch then begins with the image before it.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        is_mixed: bool = False,
    ):
        if batch_size % (micro_batch_size * world_size):
            raise ValueError(f"{micro_batch_size} x {world_size} ranks does not divide the batch of {batch_size}")
        self.num_images, self.batch_size, self.micro_batch_size = num_images, batch_size, micro_batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.with_before = is_mixed and micro_batch_size < batch_size
        self.epoch = 0
        self.standing: Callable[[], tuple[int, int, int]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded."""
        self.epoch = epoch

    def follow(self, standing: Callable[[], tuple[int, int, int]]) -> None:
        """Take the epoch, and the place to begin at within it, from a Trainer's steps from now on.

        Lightning's own count is not used: after a restart it was found one too high (2.6.6), and it is announced to
        samplers, not to batch samplers.

        Args:
            standing: Returns the optimizer steps done so far, the micro-batches that the Trainer takes of an epoch, and
                those per optimizer step; asked at the begin of each epoch, as callbacks set the last. Both must be the
                same in all epochs.
        """
        self.standing = standing

    def permutation(self) -> torch.Tensor:
        """Return the epoch's order, (num_images,) int64."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        return torch.randperm(self.num_images, generator=generator)

    def __len__(self) -> int:
        return self.num_images // self.batch_size * (self.batch_size // self.micro_batch_size // self.world_size)

    def __iter__(self) -> Iterator[list[Place]]:
        begin = 0
        if self.standing is not None:
            done, taken, accumulate = self.standing()
            self.epoch, within = divmod(done, math.ceil(min(taken, len(self)) / accumulate))
            begin = within * accumulate
        order = self.permutation().tolist()
        stride, batch = self.micro_batch_size * self.world_size, self.batch_size
        for start in range(begin * stride, self.num_images // batch * batch, stride):
            mine, first = start + self.rank * self.micro_batch_size, start // batch * batch
            places = [Place(self.epoch, p, order[first]) for p in order[mine : mine + self.micro_batch_size]]
            if self.with_before:
                before = order[first + (mine - first - 1) % batch]
                places.insert(0, Place(self.epoch, before, order[first], True))
            yield places
