"""Several processes that torchrun starts train as one does; one ends, and all do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed

import zoo
from tests.processes import started
from zoo.engine.runtime.distributed import SINGLE, Ranks, own_device, shard
from zoo.modelfile import read_model

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
BASE = {"weights": "none", "device": "cpu", "precision": "fp32"}
QUICK = {**BASE, "lr": 0.05, "epochs": 2, "optimizer": "sgd"}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def test_parts_are_the_whole_in_order_and_none_is_of_one():
    for world in range(1, 6):
        for count in range(14):
            parts = [shard(range(count), rank, world) for rank in range(world)]
            assert [place for part in parts for place in part] == list(range(count))
            sizes = [len(part) for part in parts]
            assert 1 not in sizes or count == 1
            filled = [size for size in sizes if size]
            assert not filled or max(filled) - min(filled) <= 1


def test_each_process_has_a_part_of_every_batch():
    order, bounds = [5, 3, 8, 1, 9, 2, 7], [(0, 4), (4, 7)]
    shares = [Ranks(rank, 2).share_batches(order, bounds) for rank in (0, 1)]
    assert shares == [([5, 3, 9, 2, 7], [(0, 2), (2, 5)]), ([8, 1], [(0, 2), (2, 2)])]


def test_a_gpu_for_each_process():
    assert own_device(torch.device("cuda:1"), SINGLE) == torch.device("cuda:1")
    assert own_device(torch.device("cpu"), Ranks(1, 2, 1)) == torch.device("cpu")
    with pytest.raises(zoo.UsageError, match="cuda:1 for 2 processes"):
        own_device(torch.device("cuda:1"), Ranks(1, 2, 1))
    if not torch.cuda.is_available():
        with pytest.raises(zoo.EnvironmentProblem, match="process 1 on this machine finds 0 GPU"):
            own_device(torch.device("cuda"), Ranks(0, 2, 0))


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
def test_two_processes_train_as_one(plainnet, tinynet, pictures, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    for victim in sorted((broken / "train" / "flag").iterdir())[:3]:
        victim.write_bytes(b"no picture")
    cases = [
        # 24 pictures in batches of 7 end in one of three, of which the second process gets none.
        (plainnet, {"train": "all", "batch_size": 7, "data": str(pictures)}),
        (plainnet, {"train": "all", "batch_size": 10, "micro_batch_size": 2, "cache_images": True}),
        (plainnet, {"train": "all", "batch_size": 8, "data": str(broken), "bad_images": "skip"}),
        (tinynet, {"train": "head", "batch_size": 8, "data": str(pictures), "workers": 1}),
    ]
    cases = [(name, {"data": str(pictures), **QUICK, **options}) for name, options in cases]
    found = {**BASE, "recipe": "probe", "data": str(broken), "bad_images": "skip"}
    then = {**QUICK, "recipe": "head-then-all", "data": str(pictures)}
    cases += [(tinynet, found), (plainnet, then)]
    Path("runs.json").write_text(
        json.dumps([(n, {**o, "out": f"two-{i}"}) for i, (n, o) in enumerate(cases)])
    )
    Path("script.py").write_text(textwrap.dedent(SCRIPT))
    with torchrun(["script.py", "runs.json"], XDG_CACHE_HOME=str(tmp_path / "cache")) as process:
        alone = [
            zoo.finetune(name, **options, out=f"one-{i}") for i, (name, options) in enumerate(cases)
        ]
        _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    for number, one in enumerate(alone):
        record = json.loads(Path(f"two-{number}/run.json").read_text())
        assert sorted(p.name for p in Path(f"two-{number}").iterdir()) == sorted(
            p.name for p in one.path.iterdir()
        )
        tensors = read_model(Path(f"two-{number}/model.safetensors"))[1].tensors
        for name, tensor in read_model(one.path / "model.safetensors")[1].tensors.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
        for split in ("val", "test"):
            ours, theirs = record["metrics"][split], one.metrics[split]
            assert ours["confusion"] == theirs["confusion"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert record["bad_images"] == one.record["bad_images"]
        losses = [
            [float(row.split(",")[3]) for row in (folder / "history.csv").read_text().split()[1:]]
            for folder in (one.path, Path(f"two-{number}"))
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def lines_of_ours(said: str) -> list[str]:
    """Return what endings said, and not that a catalogue is read for the first time."""
    endings = ("zoo: error:", "zoo: bug:", "zoo: terminated:", "zoo: interrupted:")
    return [line for line in said.splitlines() if line.startswith(endings)]


@pytest.mark.slow
def test_what_all_find_wrong_one_says(pictures):
    command = ["-m", "zoo", "finetune", "no_such_net", "--data", str(pictures)]
    with torchrun(command) as process:
        out, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == ""
    ours = lines_of_ours(said)
    assert len(ours) == 1, said
    (line,) = ours
    assert "no backbone is named 'no_such_net'" in line
    assert "exitcode  : 2" in said


@pytest.mark.slow
def test_an_image_that_one_cannot_read_ends_all(plainnet, pictures, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    # The last of the validation split, which the second process reads.
    victim = max((broken / "val" / "playing_card").iterdir())
    victim.write_bytes(b"no picture")
    options = ["--data", str(broken), "--weights", "none", "--device", "cpu", "--train", "all"]
    with torchrun(["-m", "zoo", "finetune", plainnet, *options]) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    ours = lines_of_ours(said)
    assert sum(str(victim) in line for line in ours) == 1
    assert all(
        str(victim) in line or "another process" in line or "terminated" in line for line in ours
    )
    assert len(ours) <= 2
    assert "Traceback (most recent call last)" not in said.partition("torch/distributed")[0]
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_ends_the_others(plainnet, pictures, number):
    options = ["--data", str(pictures), "--weights", "none", "--device", "cpu", "--train", "all"]
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
        said = process.communicate(timeout=300)[1]
        assert not Path(f"/proc/{ranks['0']}").exists()
    assert process.returncode == 1
    assert len(lines_of_ours(said)) <= 2
    assert not Path("runs").exists()
