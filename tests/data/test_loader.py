import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from tests.processes import started
from zoo.data.augment import Draw
from zoo.data.dataset import SampleTransform
from zoo.data.decode import decode
from zoo.data.loader import (
    AHEAD,
    PART,
    BadImage,
    Batch,
    batch_bounds,
    can_use_threads,
    load_batches,
    worker_problem,
)
from zoo.data.split import FileSplit
from zoo.data.transforms import prepare
from zoo.data.user_dataset import DatasetSplit
from zoo.errors import EnvironmentProblem, UsageError
from zoo.options import Augmentation
from zoo.seeding import epoch_order
from zoo.spec import Preprocess
from zoo.tasks.classification.data.sources import open_data
from zoo.tasks.classification.data.user_dataset import LoaderSplit

PREPROCESS = Preprocess((40, 48), resize=44)
SMALL = SampleTransform(PREPROCESS)


@pytest.fixture
def split(tmp_path: Path) -> FileSplit:
    """Return a split of eleven images, three of them unreadable."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    paths = tuple(f"{'a' if i < 6 else 'b'}/{i:02}.png" for i in range(11))
    for path in paths:
        values = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / path)
    (tmp_path / paths[2]).write_text("text")
    whole = (tmp_path / paths[3]).read_bytes()
    (tmp_path / paths[3]).write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (100_000, 1)).save(tmp_path / paths[8])
    return FileSplit("train", tmp_path, paths, (0,) * 6 + (1,) * 5)


def same(one: Batch, other: Batch) -> bool:
    tensors = ("inputs", "targets", "indices")
    equal = (torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    return all(equal) and one.bad == other.bad


def test_batch_contains_readable_images(split: FileSplit) -> None:
    order = [10, 2, 0, 8, 3, 7]
    first, second = load_batches(split, SMALL, order, 4)
    assert first.inputs.shape == (2, 3, 40, 48)
    assert first.inputs.is_contiguous(memory_format=torch.channels_last)
    assert (first.inputs.dtype, first.targets.dtype) == (torch.uint8, torch.int64)
    assert (first.indices.tolist(), first.targets.tolist()) == ([10, 0], [1, 0])
    for row, index in enumerate(first.indices.tolist()):
        assert torch.equal(first.inputs[row], prepare(decode(split.path(index)), PREPROCESS))
    narrow = BadImage(split.where(8), "100000 x 1 pixels are too narrow to resize")
    assert first.bad == (BadImage(split.where(2), "not an image that zoo reads"), narrow)
    assert (second.indices.tolist(), second.bad) == ([7], (BadImage(split.where(3), "truncated"),))


def test_batch_of_bad_images_is_empty(split: FileSplit) -> None:
    (batch,) = load_batches(split, SMALL, [2, 3], 2)
    assert (len(batch), batch.inputs.shape, len(batch.bad)) == (0, (0, 3, 40, 48), 2)


def test_batches_do_not_depend_on_workers(split: FileSplit) -> None:
    order = epoch_order(len(split), seed=3, epoch=1)
    expected = list(load_batches(split, SMALL, order, 3))
    seen = [i for batch in expected for i in batch.indices.tolist()]
    assert seen == [i for i in order if i not in (2, 3, 8)]
    for workers, threads in [(1, 0), (2, 0), (0, 1), (0, 2), (0, 7)]:
        batches = list(load_batches(split, SMALL, order, 3, workers, threads=threads))
        assert all(same(one, other) for one, other in zip(expected, batches, strict=True))
    assert list(load_batches(split, SMALL, [], 3, threads=2)) == []


def test_batches_of_several_parts_do_not_depend_on_workers(split: FileSplit) -> None:
    many = FileSplit(split.name, split.root, split.paths * 20, split.targets * 20)
    order = epoch_order(len(many), seed=3, epoch=1)
    bounds = [(0, 0), (0, PART), (PART, 3 * PART + 1), (3 * PART + 1, 220)]
    options = {"digest": True, "bounds": bounds}
    expected = list(load_batches(many, SMALL, order, 1, **options))
    batches = list(load_batches(many, SMALL, order, 1, 3, **options))
    assert [len(batch) + len(batch.bad) for batch in batches] == [0, 32, 65, 123]
    assert all(same(one, other) for one, other in zip(expected, batches, strict=True))
    assert [each.digests for each in batches] == [each.digests for each in expected]


def test_loading_preserves_global_generator(split: FileSplit) -> None:
    before = torch.random.get_rng_state()
    for workers, threads in [(0, 0), (1, 0), (0, 2)]:
        list(load_batches(split, SMALL, range(4), 2, workers, threads=threads))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_of_real_images_match_their_indices() -> None:
    val = open_data(None).splits["val"]
    batches = list(
        load_batches(val, SampleTransform(Preprocess(32)), range(len(val)), 19, 2, training=True)
    )
    labels = torch.cat([batch.targets for batch in batches])
    indices = torch.cat([batch.indices for batch in batches])
    assert tuple(labels.tolist()) == val.targets
    assert indices.tolist() == list(range(96))
    assert [len(batch) for batch in batches] == [19, 19, 19, 19, 20]


def children() -> set[int]:
    """Return the ids of this process's children; Linux only."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listed.split()}


def read_and_signal(split: FileSplit, number: signal.Signals) -> list[int]:
    """Load many batches, and send a signal to the worker after the first."""
    many = FileSplit(split.name, split.root, split.paths * 50, split.targets * 50)
    before, seen = children(), []
    for batch in load_batches(many, SMALL, range(len(many)), 8, workers=1):
        if not seen:
            (worker,) = children() - before
            os.kill(worker, number)
        seen += [*batch.indices.tolist(), *batch.bad]
    return seen


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds its children in /proc")


@needs_proc
def test_killed_worker_raises_environment_problem(split: FileSplit) -> None:
    with pytest.raises(EnvironmentProblem, match=r"killed by SIGKILL; .*fewer workers"):
        read_and_signal(split, signal.SIGKILL)
    assert not multiprocessing.active_children()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("zoo-read")]


@dataclass(frozen=True)
class Counting(FileSplit):
    """Records the thread that reads each sample."""

    seen: list[str] = field(default_factory=list)

    def sample(self, index, at_least=None):
        self.seen.append(threading.current_thread().name)
        return super().sample(index, at_least)


def test_threads_prefetch_and_stop_with_caller(split: FileSplit) -> None:
    many = Counting(split.name, split.root, split.paths * 50, split.targets * 50)
    batches = load_batches(many, SMALL, range(len(many)), 8, threads=2)
    assert not readers()
    for number in (1, 2, 3):
        next(batches)
        most, until = 8 * (number + AHEAD), time.monotonic() + 20
        while len(many.seen) < most and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(many.seen) == most
    assert len(readers()) == 2
    batches.close()
    until = time.monotonic() + 20
    while readers() and time.monotonic() < until:
        time.sleep(0.01)
    assert readers() == []
    read = len(many.seen)
    time.sleep(0.1)
    assert len(many.seen) == read
    assert {name.rpartition("_")[0] for name in many.seen} == {"zoo-read"}
    list(load_batches(split, SMALL, range(5), 2, threads=2))
    assert readers() == []


def test_threads_without_prefetch_are_idle_between_batches(split: FileSplit) -> None:
    many = Counting(split.name, split.root, split.paths * 5, split.targets * 5)
    batches = load_batches(many, SMALL, range(len(many)), 8, threads=2, ahead=0)
    for number in (1, 2, 3):
        next(batches)
        time.sleep(0.2)
        assert len(many.seen) == 8 * number
    batches = [*load_batches(many, SMALL, range(len(many)), 8, threads=2, ahead=0)]
    expected = [*load_batches(many, SMALL, range(len(many)), 8)]
    assert all(same(one, other) for one, other in zip(batches, expected, strict=True))


def test_threads_not_used_for_augmentation_or_user_datasets(split: FileSplit) -> None:
    names: list[str] = []

    class Theirs(TensorDataset):
        def __getitem__(self, index):
            names.append(threading.current_thread().name)
            return super().__getitem__(index)

    images = torch.zeros(6, 3, 40, 48)
    own = DatasetSplit("train", Theirs(images, torch.arange(6) % 2), (*range(6),), (0, 1) * 3)
    assert len(list(load_batches(own, SMALL, range(6), 2, threads=2))) == 3
    counting = Counting(split.name, split.root, split.paths, split.targets)
    draw = Draw(Augmentation.parse("crop,flip"), seed=0, epoch=0)
    drawn = list(load_batches(counting, SMALL, range(11), 4, draw=draw, threads=2))
    assert {*names, *counting.seen} == {threading.current_thread().name}
    expected = load_batches(split, SMALL, range(11), 4, workers=1, draw=draw)
    assert all(same(one, other) for one, other in zip(drawn, expected, strict=True))
    assert not can_use_threads(own, None)
    assert not can_use_threads(split, draw)
    assert can_use_threads(split, None)


@pytest.mark.slow
def test_signal_stops_threads(split: FileSplit, tmp_path: Path) -> None:
    program = """
        import pickle, signal, sys
        from zoo.data.loader import load_batches
        from zoo.data.split import FileSplit
        from zoo.data.dataset import SampleTransform
        from zoo.spec import Preprocess
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        split = pickle.loads(open("split", "rb").read())
        many = FileSplit("all", split.root, split.paths * 9000, split.targets * 9000)
        large = SampleTransform(Preprocess(224))
        for number in range(2):
            try:
                for batch in load_batches(many, large, range(len(many)), 4, threads=2):
                    print(f"read {number}", flush=True)
            except KeyboardInterrupt:
                print(f"stopped {number}", flush=True)
    """
    (tmp_path / "split").write_bytes(pickle.dumps(split))
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with started(command, cwd=tmp_path, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        for number, sent in enumerate((signal.SIGINT, signal.SIGTERM)):
            assert f"read {number}\n" in reader.stdout
            reader.send_signal(sent)
            assert f"stopped {number}\n" in reader.stdout
        assert reader.wait(timeout=30) == 0


@needs_proc
def test_workers_ignore_interrupt(split: FileSplit) -> None:
    assert len(read_and_signal(split, signal.SIGINT)) == 550


def test_worker_problem_recognizes_dead_workers_only() -> None:
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is ...")
    gone = RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
    for error, fate in [(killed, "is killed by signal: Bus error"), (gone, "exited unexpectedly")]:
        problem = worker_problem(error)
        assert problem is not None
        assert problem.message == f"a process that reads images died: it {fate}"
    full = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left")
    assert "shared memory" in str(worker_problem(full))
    assert worker_problem(RuntimeError("Caught X in DataLoader worker process 0.")) is None


def test_worker_exception_propagates(split: FileSplit) -> None:
    short = FileSplit(split.name, split.root, split.paths, ())
    for workers, threads in [(0, 0), (1, 0), (0, 2)]:
        with pytest.raises(IndexError):
            list(load_batches(short, SMALL, [0], 1, workers, threads=threads))
    assert readers() == []


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_batch_bounds_cover_order_without_single_image(count: int, size: int) -> None:
    bounds = batch_bounds(count, size)
    assert [i for first, last in bounds for i in range(first, last)] == list(range(count))
    lengths = [last - first for first, last in bounds]
    assert all(length == size for length in lengths[:-1])
    assert all(0 < length <= size + 1 for length in lengths)
    if size > 1 and count > 1:
        assert lengths[-1] > 1


def test_batch_bounds_in_evaluation_are_never_larger_than_a_batch() -> None:
    assert batch_bounds(9, 4, training=False) == [(0, 4), (4, 8), (8, 9)]
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(0, 4) == []


def test_batch_bounds_rejects_batch_size_zero() -> None:
    with pytest.raises(UsageError, match="a batch of 0 images"):
        batch_bounds(10, 0)


def test_order_depends_on_seed_and_epoch() -> None:
    first = epoch_order(100, seed=0, epoch=0)
    torch.manual_seed(1)
    np.random.default_rng(1).random()
    assert first == epoch_order(100, seed=0, epoch=0)
    assert sorted(first) == list(range(100))
    assert all(type(index) is int for index in first)
    assert len({tuple(epoch_order(100, s, e)) for s in range(5) for e in range(5)}) == 25
    # One number must not run into the other.
    assert epoch_order(100, seed=1 << 32, epoch=0) != epoch_order(100, seed=0, epoch=1)
    assert epoch_order(0, 0, 0) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("workers", "threads"), [(0, 0), (1, 0), (3, 0), (0, 2)])
def test_pinned_batches_are_equal(split: FileSplit, workers: int, threads: int) -> None:
    plain = list(load_batches(split, SMALL, range(11), 4))
    options = {"workers": workers, "threads": threads, "pin_memory": True}
    pinned = list(load_batches(split, SMALL, range(11), 4, **options))
    assert all(batch.inputs.is_pinned() and batch.targets.is_pinned() for batch in pinned)
    assert all(same(one, other) for one, other in zip(plain, pinned, strict=True))


def test_batch_bounds_merges_single_remaining_image():
    images, labels = torch.zeros(9, 3, 8, 8), torch.arange(9) % 2

    def sizes(batch_size, **options):
        loader = DataLoader(TensorDataset(images, labels), batch_size=batch_size, **options)
        batches = list(LoaderSplit("train", loader, (), 2).batches())
        assert torch.cat([targets for _, targets in batches]).tolist() == labels.tolist()
        assert all(len(inputs) == len(targets) for inputs, targets in batches)
        return [len(targets) for _, targets in batches]

    assert sizes(4) == [4, 5]
    assert sizes(2) == [2, 2, 2, 3]
    assert sizes(3) == [3, 3, 3]
    assert sizes(8) == [9]
    assert sizes(1) == [1] * 9  # as was asked for
    assert sizes(9) == [9]
