"""Distributed training by torchrun: equivalence to one process, and error handling."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed

import zoo
from tests.processes import started
from zoo.data.schema import Schema
from zoo.engine.runtime.distributed import SINGLE, Ranks, process_device, shard
from zoo.modelfile import read_model
from zoo.tasks.base import Outputs
from zoo.tasks.classification.task import ImageClassification

pytestmark = pytest.mark.usefixtures("in_empty_folder")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
BASE = {"weights": "none", "device": "cpu", "precision": "fp32"}
QUICK = {**BASE, "lr": 0.05, "epochs": 2, "optimizer": "sgd"}


def test_shards_cover_order_without_single_positions():
    for world in range(1, 6):
        for count in range(14):
            parts = [shard(range(count), rank, world) for rank in range(world)]
            assert [position for part in parts for position in part] == list(range(count))
            sizes = [len(part) for part in parts]
            assert 1 not in sizes or count == 1
            filled = [size for size in sizes if size]
            assert not filled or max(filled) - min(filled) <= 1


def test_share_batches_splits_every_batch():
    order, bounds = [5, 3, 8, 1, 9, 2, 7], [(0, 4), (4, 7)]
    shares = [Ranks(rank, 2).shard_batches(order, bounds) for rank in (0, 1)]
    assert shares == [([5, 3, 9, 2, 7], [(0, 2), (2, 5)]), ([8, 1], [(0, 2), (2, 2)])]


def test_own_device_per_process():
    assert process_device(torch.device("cuda:1"), SINGLE) == torch.device("cuda:1")
    assert process_device(torch.device("cpu"), Ranks(1, 2, 1)) == torch.device("cpu")
    with pytest.raises(zoo.UsageError, match="cuda:1 for 2 processes"):
        process_device(torch.device("cuda:1"), Ranks(1, 2, 1))
    if not torch.cuda.is_available():
        with pytest.raises(zoo.EnvironmentProblem, match="process 1 on this machine finds 0 GPU"):
            process_device(torch.device("cuda"), Ranks(0, 2, 0))


def collectives(rank: int, store: str, results: multiprocessing.SimpleQueue) -> None:
    """Run every collective as one of two processes, and return what it gives."""
    shared = torch.distributed.FileStore(store, 2)
    torch.distributed.init_process_group("gloo", store=shared, rank=rank, world_size=2)
    ranks = Ranks(rank, 2, rank)
    mean, count = torch.tensor([1.0, 5.0]) * (rank + 1), torch.tensor(7 + rank)
    ranks.average_buffers([mean, count])
    metric = ImageClassification().metric(Schema(("a", "b")), torch.device("cpu"))
    for _ in range(rank + 1):
        metric.update(Outputs(torch.tensor([[2.0, 0.0], [0.0, 1.0]])), torch.tensor([0, 0]))
    values = ranks.merge(metric).compute()
    exchanged = ranks.sum(rank + 3), ranks.gather(rank), ranks.broadcast(None if rank else "x")
    results.put((mean.tolist(), int(count), values["images"], values["top1"], *exchanged))
    torch.distributed.destroy_process_group()


def test_collectives_of_two_processes(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=collectives, args=(rank, str(tmp_path / "store"), results))
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    # Statistics are averaged; counters are those of rank 0.
    expected = ([1.5, 7.5], 7, 6, 0.5, 7, [0, 1], "x")
    assert [results.get() for _ in processes] == [expected] * 2


@contextmanager
def torchrun(command: list[str], **environment: str) -> Iterator[subprocess.Popen]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started([*TORCHRUN, *command], **pipes, env={**os.environ, **environment}) as process:
        yield process


SCRIPT = """
    import json, sys
    import torch
    import zoo
    from zoo.engine.runtime.distributed import join

    runs = json.load(open(sys.argv[1]))
    for name, options in runs:
        run = zoo.finetune(name, **options)
        assert run.record["plan"]["processes"] == 2

    ranks = join()
    records = ranks.gather(run.record["sha256"])
    assert records[0] == records[1]
"""


@pytest.mark.slow
def test_two_processes_match_one(plainnet, tinynet, image_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(image_folder, broken)
    for victim in sorted((broken / "train" / "flag").iterdir())[:3]:
        victim.write_bytes(b"no image")
    whole = str(image_folder / "train")
    cases = [
        # 24 images in batches of 7 end in a batch of three, with an empty shard for rank 1.
        (plainnet, {"train": "all", "batch_size": 7, "data": str(image_folder)}),
        (plainnet, {"train": "all", "batch_size": 7, "class_weights": {"flag": 5, "mammal": 0.5}}),
        (plainnet, {"train": "all", "batch_size": 10, "micro_batch_size": 2, "cache_images": True}),
        (plainnet, {"train": "all", "batch_size": 8, "data": str(broken), "bad_images": "skip"}),
        (tinynet, {"train": "head", "batch_size": 8, "data": str(image_folder), "workers": 1}),
        (plainnet, {"train": "all", "batch_size": 8, "data": whole, "val": 0}),
    ]
    cases = [(name, {"data": str(image_folder), **QUICK, **options}) for name, options in cases]
    probe = {**BASE, "recipe": "probe", "data": str(broken), "bad_images": "skip"}
    two_phases = {**QUICK, "recipe": "head-then-all", "data": str(image_folder)}
    cases += [(tinynet, probe), (plainnet, two_phases)]
    Path("runs.json").write_text(
        json.dumps([(n, {**o, "out": f"two-{i}"}) for i, (n, o) in enumerate(cases)])
    )
    Path("script.py").write_text(textwrap.dedent(SCRIPT))
    with torchrun(["script.py", "runs.json"], XDG_CACHE_HOME=str(tmp_path / "cache")) as process:
        single = [
            zoo.finetune(name, **options, out=f"one-{i}") for i, (name, options) in enumerate(cases)
        ]
        _, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    for number, one in enumerate(single):
        record = json.loads(Path(f"two-{number}/run.json").read_text())
        assert sorted(p.name for p in Path(f"two-{number}").iterdir()) == sorted(
            p.name for p in one.path.iterdir()
        )
        tensors = read_model(Path(f"two-{number}/model.safetensors"))[1].tensors
        for name, tensor in read_model(one.path / "model.safetensors")[1].tensors.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
        assert record["metrics"].keys() == one.metrics.keys()
        for split, theirs in one.metrics.items():
            ours = record["metrics"][split]
            assert ours["confusion"] == theirs["confusion"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert record["bad_images"] == one.record["bad_images"]
        losses = [
            [float(row.split(",")[3]) for row in (folder / "history.csv").read_text().split()[1:]]
            for folder in (one.path, Path(f"two-{number}"))
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bytes(tinynet, image_folder, tmp_path):
    options = ["--data", str(image_folder), "--weights", "none", "--device", "cpu", "--seed", "3"]
    options += ["--train", "all", "--epochs", "4", "--batch-size", "8", "--augment", "flip"]
    command = ["-m", "zoo", "finetune"]
    with torchrun([*command, tinynet, *options, "--out", "whole"]) as process:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    every = ["--checkpoint-every", "0"]
    with torchrun([*command, tinynet, *options, *every, "--out", "parts"]) as process:
        while not [*Path("parts/checkpoints").glob("checkpoint-*")]:
            assert process.poll() is None
            time.sleep(0.01)
        # torchrun starts each process in a session of its own.
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        process.kill()
    with torchrun([*command, "--resume", "parts"]) as process:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert "resuming parts after" in stderr
    assert Path("parts/model.safetensors").read_bytes() == (
        Path("whole/model.safetensors").read_bytes()
    )


@pytest.mark.slow
def test_channels_last_convolutions_of_one_pixel_train_without_warning(image_folder):
    options = ["--weights", "none", "--device", "cpu", "--train", "all", "--epochs", "1", "--quiet"]
    command = ["-m", "zoo", "finetune", "timm/test_resnet", "--data", str(image_folder), *options]
    with torchrun([*command, "--out", "run"]) as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "Warning" not in stderr


def ending_lines(stderr: str) -> list[str]:
    """Return the lines that report the end of a process."""
    endings = ("zoo: error:", "zoo: bug:", "zoo: terminated:", "zoo: interrupted:")
    return [line for line in stderr.splitlines() if line.startswith(endings)]


@pytest.mark.slow
def test_common_error_is_reported_once(image_folder):
    command = ["-m", "zoo", "finetune", "no_such_net", "--data", str(image_folder)]
    with torchrun(command) as process:
        out, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    lines = ending_lines(stderr)
    assert len(lines) == 1, stderr
    (line,) = lines
    assert "no backbone is named 'no_such_net'" in line
    assert "exitcode  : 2" in stderr


@pytest.mark.slow
def test_unreadable_image_ends_all_processes(plainnet, image_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(image_folder, broken)
    # The last of the validation split, which the second process reads.
    victim = max((broken / "val" / "playing_card").iterdir())
    victim.write_bytes(b"no image")
    options = ["--data", str(broken), "--weights", "none", "--device", "cpu", "--train", "all"]
    with torchrun(["-m", "zoo", "finetune", plainnet, *options]) as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    lines = ending_lines(stderr)
    assert sum(str(victim) in line for line in lines) == 1
    assert all(
        str(victim) in line or "another process" in line or "terminated" in line for line in lines
    )
    assert len(lines) <= 2
    assert "Traceback (most recent call last)" not in stderr.partition("torch/distributed")[0]
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_process_ends_the_others(plainnet, image_folder, number):
    options = [
        "--data",
        str(image_folder),
        "--weights",
        "none",
        "--device",
        "cpu",
        "--train",
        "all",
    ]
    command = ["-m", "zoo", "finetune", plainnet, *options, "--epochs", "100000"]
    with torchrun(command) as process:
        next(line for line in process.stderr if " 2/" in line)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = {
            dict(
                entry.split("=", 1)
                for entry in Path(f"/proc/{child}/environ").read_text().split("\0")
                if "=" in entry
            ).get("RANK"): int(child)
            for child in children
        }
        os.kill(ranks["1"], number)
        stderr = process.communicate(timeout=300)[1]
        assert not Path(f"/proc/{ranks['0']}").exists()
    assert process.returncode == 1
    assert len(ending_lines(stderr)) <= 2
    # A signal that one process receives stops all, after a checkpoint.
    written = [*Path("runs").glob("*/checkpoints/checkpoint-*")]
    assert written if number == signal.SIGTERM else bool(written) is Path("runs").exists()
