"""Randomness as a function of seed and key, against numpy, hashlib and torch themselves."""

import hashlib

import numpy as np
import pytest
import torch

from zoo.seeding import draw_by_name, epoch_order, epoch_seed, seed_torch, seeded, shuffled


def test_epoch_seeds_differ_by_seed_epoch_and_rank():
    assert epoch_seed(7, 3) == 7_000_024
    keys = [(seed, epoch, rank) for seed in range(3) for epoch in range(1, 50) for rank in range(8)]
    seeds = {epoch_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    largest = epoch_seed(2**64 - 1, 1000, 7)
    assert 0 <= largest < 2**63
    torch.manual_seed(largest)


def test_epoch_order_is_numpy_permutation():
    bits = np.random.PCG64(np.random.SeedSequence(5, spawn_key=(2,)))
    assert epoch_order(9, 5, 2) == np.random.Generator(bits).permutation(9).tolist()
    orders = [tuple(epoch_order(40, *key)) for key in ((5, 2), (5, 3), (6, 2))]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_seeded_draws_by_every_part_of_key():
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    draws = []
    for key in ((4, 1, 2), (4, 1, 3), (4, 2, 2), (5, 1, 2), (4, 1), (4, 1, 2, 1)):
        with seeded(*key):
            draws.append(torch.rand(4))
    words = np.random.SeedSequence(4, spawn_key=(1, 2)).generate_state(1, np.uint64)
    by_hand = torch.Generator().manual_seed(int(words[0]) // 2)
    assert torch.equal(draws[0], torch.rand(4, generator=by_hand))
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    with pytest.raises(KeyError), seeded(0):
        raise KeyError
    assert torch.equal(torch.rand(2), expected)


def test_shuffled_does_not_draw_from_global_generator():
    torch.manual_seed(3)
    expected = torch.randperm(30), torch.rand(1)
    torch.manual_seed(3)
    torch.randperm(30)
    assert torch.equal(shuffled(30, 3), expected[0])
    assert torch.equal(torch.rand(1), expected[1])
    assert not torch.equal(shuffled(30, 4), expected[0])


def test_seed_torch_none_leaves_the_generator():
    seed_torch(6)
    expected = torch.rand(2)
    seed_torch(6)
    assert torch.rand(1) == expected[0]
    seed_torch(None)
    assert torch.rand(1) == expected[1]


def test_draw_by_name_takes_smallest_digests():
    names = [f"image{number}.png" for number in range(20)]
    for seed in (0, 1):
        digests = [hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest() for name in names]
        assert draw_by_name(names, seed, 5) == set(np.argsort(digests)[:5].tolist())
    assert draw_by_name(names, 0, 5) != draw_by_name(names, 1, 5)
    # Without one image, the others keep their rank.
    drawn = {names[index] for index in draw_by_name(names, 0, 5)}
    fewer = [name for name in names if name != min(drawn)]
    assert drawn - {min(drawn)} < {fewer[index] for index in draw_by_name(fewer, 0, 5)}
