"""Features on the disk: found by content, whole or not there, whoever writes and dies."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.processes import started
from zoo.cache import PART, ROWS
from zoo.engine.features import store
from zoo.engine.features.store import FeatureStore

WRITE = """
import os, signal, sys, torch
from zoo.engine.features import store
from zoo.engine.features.store import FeatureStore
store.LEAST_ROWS = 4
first, count = int(sys.argv[1]), int(sys.argv[2])
with FeatureStore("shelf") as shelf:
    for n in range(first, first + count):
        shelf.add([bytes([n]) * 32], {"fc": torch.full((1, 3), float(n))})
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def alone(own_cache):
    return own_cache


def digests(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in numbers]


def test_every_dtype_and_shape_comes_back_bit_for_bit():
    torch.manual_seed(0)
    features = {
        "fc": torch.randn(5, 7).to(torch.bfloat16),
        "AuxLogits.fc": torch.randn(5, 3),
        "map": torch.randn(5, 2, 2, 3).to(torch.float16).permute(0, 3, 1, 2),
    }
    with FeatureStore("a") as shelf:
        rows = shelf.add(digests(*range(5)), features)
        assert shelf.find(digests(3)).tolist() == [3]
    with FeatureStore("a") as again:
        assert len(again) == 5
        assert again.find(digests(4, 9, 0)).tolist() == [4, -1, 0]
        found = again.gather(rows[[4, 0, 2]])
        for path, tensor in features.items():
            assert found[path].dtype == tensor.dtype
            assert torch.equal(found[path], tensor[[4, 0, 2]])


def test_rows_stay_where_they_are_while_more_come(monkeypatch):
    monkeypatch.setattr(store, "LEAST_ROWS", 3)
    with FeatureStore("a") as shelf:
        rows = [
            shelf.add(digests(n, n + 100), {"fc": torch.tensor([[float(n)], [n + 0.5]])})
            for n in range(10)
        ]
        found = shelf.gather(np.concatenate(rows))["fc"].flatten().tolist()
        assert found == [value for n in range(10) for value in (n, n + 0.5)]
        assert len(shelf.parts) > 1
    with FeatureStore("a") as again:
        places = again.find(digests(7, 107))
        assert again.gather(places)["fc"].flatten().tolist() == [7.0, 7.5]


def test_a_shelf_in_memory_leaves_nothing(alone):
    with FeatureStore(None) as shelf:
        rows = shelf.add(digests(1), {"fc": torch.ones(1, 2)})
        assert shelf.gather(rows)["fc"].tolist() == [[1.0, 1.0]]
    assert not (alone / "features").exists()


def test_what_a_killed_process_had_made_whole_stays(alone):
    done = subprocess.run([sys.executable, "-c", WRITE, "0", "10", "die"], timeout=100)
    assert done.returncode == -9
    folder = alone / "features/shelf"
    assert [path.name for path in folder.glob(f"*{PART}")]
    with FeatureStore("shelf") as shelf:
        found = shelf.find([bytes([n]) * 32 for n in range(10)])
        assert len(shelf) == 8
        assert (found >= 0).tolist() == [True] * 8 + [False] * 2
        kept = shelf.gather(found[:8])["fc"][:, 0].tolist()
        assert kept == [float(n) for n in range(8)]
    assert not [path.name for path in folder.glob(f"*{PART}")]


def test_an_interrupted_one_keeps_all_it_made():
    def interrupted():
        with FeatureStore("a") as shelf:
            shelf.add(digests(1), {"fc": torch.ones(1, 2)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with FeatureStore("a") as again:
        assert again.find(digests(1)).tolist() == [0]


def test_two_processes_write_at_once():
    first, second = ([sys.executable, "-c", WRITE, start, "30", "end"] for start in ("0", "20"))
    with started(first) as one, started(second) as two:
        assert [process.wait(100) for process in (one, two)] == [0, 0]
    with FeatureStore("shelf") as shelf:
        rows = shelf.find([bytes([n]) * 32 for n in range(50)])
        assert shelf.gather(rows)["fc"][:, 2].tolist() == [float(n) for n in range(50)]
        assert len(shelf) == 60  # ten of them twice


@pytest.mark.parametrize("how", ["cut", "gone", "longer"])
def test_a_damaged_part_is_left_out_and_counted(alone, how):
    for first in (0, 4):
        with FeatureStore("shelf") as shelf:
            keys = [bytes([n]) * 32 for n in range(first, first + 4)]
            shelf.add(keys, {"fc": torch.ones(4, 3)})
    whole = sorted((alone / "features/shelf").glob(f"*{ROWS}"))[0]
    data = whole.read_bytes()
    whole.unlink()
    if how != "gone":
        whole.write_bytes(data[:-1] if how == "cut" else data + data)
    with FeatureStore("shelf") as shelf:
        assert len(shelf) == 4
        assert len(shelf.damaged) == 1
        rows = shelf.find([bytes([n]) * 32 for n in range(8)])
        assert sorted((rows >= 0).tolist()) == [False] * 4 + [True] * 4


def test_without_room_on_the_disk_it_goes_on_in_memory(alone):
    # A limit on the size of files stands in for the disk; it holds for this process alone.
    code = """
import resource, signal, sys, torch
from zoo.engine.features.store import FeatureStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with FeatureStore("shelf") as shelf:
    rows = [
        shelf.add([bytes([n]) * 32], {"fc": torch.full((1, 500), float(n))})[0] for n in range(50)
    ]
    print(shelf.gather(__import__("numpy").array(rows))["fc"][:, 499].tolist())
    print(shelf.problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    kept, problem = done.stdout.splitlines()
    assert kept == str([float(n) for n in range(50)])
    assert "File too large" in problem
    assert not list((alone / "features/shelf").glob(f"*{PART}"))


def test_a_cache_that_cannot_be_written_to_keeps_in_memory(alone, monkeypatch):
    alone.parent.mkdir(exist_ok=True)
    alone.write_text("a file where the folder should be")
    with FeatureStore("a") as shelf:
        rows = shelf.add(digests(1), {"fc": torch.ones(1, 2)})
        assert shelf.gather(rows)["fc"].shape == (1, 2)
        assert "cannot write" in shelf.problem


def test_many_pictures_are_found_in_an_index():
    count = 100_000
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 256, (count, 32), dtype=np.uint8)
    with FeatureStore("a") as shelf:
        for first in range(0, count, 10_000):
            some = [bytes(key) for key in keys[first : first + 10_000]]
            shelf.add(some, {"fc": torch.arange(first, first + 10_000.0)[:, None]})
        places = generator.integers(0, count, 1000)
        rows = shelf.find([*(bytes(keys[place]) for place in places), *digests(*range(1000))])
        assert (rows[1000:] == -1).all()
        assert shelf.gather(rows[:1000])["fc"].flatten().tolist() == places.tolist()


def test_what_was_proven_is_remembered():
    with FeatureStore("a", {"backbone": "x/y"}) as shelf:
        shelf.record_check("a head", None)
        shelf.record_check("another", "it does more")
    with FeatureStore("a") as again:
        assert again.checks == {"a head": None, "another": "it does more"}
