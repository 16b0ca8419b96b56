"""Every source of randomness, as a function of a seed and of what it is drawn for.

Nothing here depends on the number of workers, on the order in which images are read, or on what
was drawn before, so a training draws the same numbers however it is spread and wherever it resumes.
torch and numpy are imported where they draw: indexing a data set needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The golden ratio in 64 bits (Knuth, The Art of Computer Programming 3, 6.4): spreads ranks evenly.
RANK_STEP = 0x9E3779B97F4A7C15


def seed_torch(seed: int | None) -> None:
    """Seed torch's global generators; None leaves them as they are."""
    if seed is not None:
        import torch

        torch.manual_seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of what a network draws in an epoch (dropout, stochastic depth).

    Args:
        seed: of the training.
        epoch: counted from 1 through all phases.
        rank: of this process; each draws different numbers.
    """
    return (seed * 1_000_003 + epoch + rank * RANK_STEP) % 2**63


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Return the positions of `count` samples, shuffled as a function of seed and epoch."""
    import numpy as np

    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    order: list[int] = np.random.Generator(np.random.PCG64(sequence)).permutation(count).tolist()
    return order


@contextlib.contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """Seed torch's CPU generator from a seed and a key inside the block, and restore it after.

    Args:
        seed: of the training.
        key: what is drawn for, such as epoch and index.
    """
    import numpy as np
    import torch

    sequence = np.random.SeedSequence(seed, spawn_key=key)
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        generator.set_state(before)


def shuffled(count: int, seed: int) -> Tensor:
    """Return a permutation `[count]` int64 from a generator of its own."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def draw_by_name(names: Sequence[str], seed: int, count: int) -> set[int]:
    """Draw `count` positions, each by a hash of seed and name.

    A name more or less changes no other name's rank, so a split survives added and removed files.
    """

    def rank(position: int) -> bytes:
        return hashlib.sha256(f"{seed}\0".encode() + os.fsencode(names[position])).digest()

    return set(sorted(range(len(names)), key=rank)[:count])
