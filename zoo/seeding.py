"""Every source of randomness, as a pure function of a seed and a key.

Draws depend on neither the number of workers, nor the order in which images are read, nor earlier
draws, so a training is reproducible however it is distributed and wherever it resumes. torch and
numpy are imported inside the functions: indexing a data set needs neither.
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
    """Seed torch's global generators, unless the seed is None."""
    if seed is not None:
        import torch

        torch.manual_seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of a network's draws in an epoch (dropout, stochastic depth).

    Args:
        seed: of the training.
        epoch: counted from 1 over all phases.
        rank: of this process; draws differ between ranks.
    """
    return (seed * 1_000_003 + epoch + rank * RANK_STEP) % 2**63


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Return a permutation of `range(count)` for a seed and an epoch."""
    import numpy as np

    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    order: list[int] = np.random.Generator(np.random.PCG64(sequence)).permutation(count).tolist()
    return order


@contextlib.contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """Seed torch's CPU generator from a seed and a key inside the block, then restore its state.

    Args:
        seed: of the training.
        key: of the draw, such as epoch and sample index.
    """
    import numpy as np
    import torch

    sequence = np.random.SeedSequence(seed, spawn_key=key)
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        generator.set_state(state)


def shuffled(count: int, seed: int) -> Tensor:
    """Return a permutation `[count]` int64, independent of torch's global generator."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def draw_by_name(names: Sequence[str], seed: int, count: int) -> set[int]:
    """Draw the indices of `count` names, ranked by a hash of seed and name.

    Adding or removing a name changes no other name's rank, so a split is stable under both.
    """
    return set(ranked_by_name(names, seed)[:count])


def ranked_by_name(names: Sequence[str], seed: int) -> list[int]:
    """Return the indices of names in the order of a hash of seed and name."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0".encode() + os.fsencode(names[index])).digest()

    return sorted(range(len(names)), key=rank)
