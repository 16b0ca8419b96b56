"""Feature store: lookup by digest, atomic segments, concurrent and killed writers."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.processes import started
from zoo.cache import INDEX, PART, ROWS
from zoo.engine.features import store
from zoo.engine.features.store import FeatureStore

WRITE = """
import os, signal, sys, torch
from zoo.engine.features import store
from zoo.engine.features.store import FeatureStore
store.MIN_SEGMENT_ROWS = 4
first, count = int(sys.argv[1]), int(sys.argv[2])
with FeatureStore("name") as opened:
    for n in range(first, first + count):
        opened.add([bytes([n]) * 32], {"fc": torch.full((1, 3), float(n))})
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def cache_folder(own_cache):
    return own_cache


def digests(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in numbers]


def test_store_round_trips_dtypes_and_shapes():
    torch.manual_seed(0)
    features = {
        "fc": torch.randn(5, 7).to(torch.bfloat16),
        "AuxLogits.fc": torch.randn(5, 3),
        "map": torch.randn(5, 2, 2, 3).to(torch.float16).permute(0, 3, 1, 2),
    }
    with FeatureStore("a") as opened:
        rows = opened.add(digests(*range(5)), features)
        assert opened.find(digests(3)).tolist() == [3]
    with FeatureStore("a") as reopened:
        assert len(reopened) == 5
        assert reopened.find(digests(4, 9, 0)).tolist() == [4, -1, 0]
        actual = reopened.gather(rows[[4, 0, 2]])
        for path, tensor in features.items():
            assert actual[path].dtype == tensor.dtype
            assert torch.equal(actual[path], tensor[[4, 0, 2]])


def test_find_compares_whole_digests():
    stored, other = bytes(32), bytes(8) + bytes([1]) * 24
    with FeatureStore(None) as opened:
        opened.add([stored], {"fc": torch.zeros(1, 3)})
        assert opened.find([other, stored, bytes([255]) * 32]).tolist() == [-1, 0, -1]


def test_rows_are_stable_over_segments(monkeypatch):
    monkeypatch.setattr(store, "MIN_SEGMENT_ROWS", 3)
    with FeatureStore("a") as opened:
        rows = [
            opened.add(digests(n, n + 100), {"fc": torch.tensor([[float(n)], [n + 0.5]])})
            for n in range(10)
        ]
        values = opened.gather(np.concatenate(rows))["fc"].flatten().tolist()
        assert values == [value for n in range(10) for value in (n, n + 0.5)]
        assert len(opened.segments) > 1
    with FeatureStore("a") as reopened:
        indices = reopened.find(digests(7, 107))
        assert reopened.gather(indices)["fc"].flatten().tolist() == [7.0, 7.5]


def test_store_in_memory_writes_no_files(cache_folder):
    with FeatureStore(None) as opened:
        rows = opened.add(digests(1), {"fc": torch.ones(1, 2)})
        assert opened.gather(rows)["fc"].tolist() == [[1.0, 1.0]]
    assert not (cache_folder / "features").exists()


def test_complete_segments_of_killed_process_are_read(cache_folder):
    done = subprocess.run([sys.executable, "-c", WRITE, "0", "10", "die"], timeout=100)
    assert done.returncode == -9
    folder = cache_folder / "features/name"
    assert [path.name for path in folder.glob(f"*{PART}")]
    with FeatureStore("name") as opened:
        rows = opened.find([bytes([n]) * 32 for n in range(10)])
        assert len(opened) == 8
        assert (rows >= 0).tolist() == [True] * 8 + [False] * 2
        values = opened.gather(rows[:8])["fc"][:, 0].tolist()
        assert values == [float(n) for n in range(8)]
    assert not [path.name for path in folder.glob(f"*{PART}")]


def test_interrupted_store_is_flushed():
    def interrupted():
        with FeatureStore("a") as opened:
            opened.add(digests(1), {"fc": torch.ones(1, 2)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with FeatureStore("a") as reopened:
        assert reopened.find(digests(1)).tolist() == [0]


def test_concurrent_writers():
    first, second = ([sys.executable, "-c", WRITE, start, "30", "end"] for start in ("0", "20"))
    with started(first) as one, started(second) as two:
        assert [process.wait(100) for process in (one, two)] == [0, 0]
    with FeatureStore("name") as opened:
        rows = opened.find([bytes([n]) * 32 for n in range(50)])
        assert opened.gather(rows)["fc"][:, 2].tolist() == [float(n) for n in range(50)]
        assert len(opened) == 60  # ten of them twice


@pytest.mark.parametrize("how", ["cut", "gone", "longer"])
def test_damaged_segment_is_skipped(cache_folder, how):
    for first in (0, 4):
        with FeatureStore("name") as opened:
            keys = [bytes([n]) * 32 for n in range(first, first + 4)]
            opened.add(keys, {"fc": torch.ones(4, 3)})
    segment = sorted((cache_folder / "features/name").glob(f"*{ROWS}"))[0]
    data = segment.read_bytes()
    segment.unlink()
    if how != "gone":
        segment.write_bytes(data[:-1] if how == "cut" else data + data)
    with FeatureStore("name") as opened:
        assert len(opened) == 4
        assert len(opened.damaged) == 1
        rows = opened.find([bytes([n]) * 32 for n in range(8)])
        assert sorted((rows >= 0).tolist()) == [False] * 4 + [True] * 4


def test_store_spills_to_memory_on_full_disk(cache_folder):
    # A limit on the size of files, for this process only, stands in for a full disk.
    # -B: it would also truncate bytecode of modules imported later, without an error.
    code = """
import resource, signal, sys, torch
from zoo.engine.features.store import FeatureStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with FeatureStore("name") as opened:
    rows = [
        opened.add([bytes([n]) * 32], {"fc": torch.full((1, 500), float(n))})[0] for n in range(50)
    ]
    print(opened.gather(__import__("numpy").array(rows))["fc"][:, 499].tolist())
    print(opened.problem)
"""
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    values, problem = done.stdout.splitlines()
    assert values == str([float(n) for n in range(50)])
    assert "File too large" in problem
    assert not list((cache_folder / "features/name").glob(f"*{PART}"))


def test_store_spills_to_memory_without_cache_folder(cache_folder, monkeypatch):
    cache_folder.parent.mkdir(exist_ok=True)
    cache_folder.write_text("a file where the folder should be")
    with FeatureStore("a") as opened:
        rows = opened.add(digests(1), {"fc": torch.ones(1, 2)})
        assert opened.gather(rows)["fc"].shape == (1, 2)
        assert "cannot write" in opened.problem


def test_find_among_many_images():
    count = 100_000
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 256, (count, 32), dtype=np.uint8)
    with FeatureStore("a") as opened:
        for first in range(0, count, 10_000):
            some = [bytes(key) for key in keys[first : first + 10_000]]
            opened.add(some, {"fc": torch.arange(first, first + 10_000.0)[:, None]})
        indices = generator.integers(0, count, 1000)
        rows = opened.find([*(bytes(keys[index]) for index in indices), *digests(*range(1000))])
        assert (rows[1000:] == -1).all()
        assert opened.gather(rows[:1000])["fc"].flatten().tolist() == indices.tolist()


def test_checks_are_persistent():
    with FeatureStore("a", {"backbone": "x/y"}) as opened:
        opened.record_check("a head", None)
        opened.record_check("another", "it does more")
    with FeatureStore("a") as reopened:
        assert reopened.checks == {"a head": None, "another": "it does more"}


def test_rows_without_index_are_removed(cache_folder):
    with FeatureStore("name") as opened:
        opened.add([bytes(32)], {"fc": torch.ones(1, 3)})
    folder = cache_folder / "features/name"
    index = next(folder.glob(f"*{INDEX}"))
    (folder / f"killed{ROWS}").write_bytes(bytes(12))
    with FeatureStore("name") as opened:
        assert len(opened) == 1
    assert [path.stem for path in folder.glob(f"*{ROWS}")] == [index.stem]
