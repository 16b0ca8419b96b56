"""Trainings on a machine that fails: full disks, limits, read-only folders, lost processes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import zoo
from tests.faults.conftest import zoo_command
from tests.processes import started

pytestmark = pytest.mark.faults

SECONDS = 240
LONG = ["--train", "all", "--epochs", "60", "--batch-size", "8"]
EACH_STEP = ["--checkpoint-every", "0"]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=variables)


def isolated(*mounts: str, command: str) -> list[str]:
    """Return a command that runs a shell line in a mount namespace, after some mounts."""
    return ["unshare", "-rm", "bash", "-c", "set -e\n" + "\n".join((*mounts, command))]


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    mount = isolated(command="mount -t tmpfs -o size=1m tmpfs /dev/shm")
    return subprocess.run(mount, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs a mount namespace")


def model(folder: str | Path) -> bytes:
    return Path(folder, "model.safetensors").read_bytes()


def train_whole(command: Callable[..., list[str]], *options: str) -> bytes:
    """Train without a fault, and return the model."""
    done = run(command(*options, "--out", "whole"))
    assert done.returncode == 0, done.stderr
    return model("whole")


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_checkpoint(folder: str = "run") -> bool:
    return any(Path(folder).glob("checkpoints/checkpoint-*"))


def last_line(text: str) -> str:
    return text.splitlines()[-1]


RESUME = "resume it with `zoo finetune --resume "


@needs_mounts
@pytest.mark.parametrize("fault", [False, True])
def test_full_disk_stops_with_6_and_resumes_to_the_same_bytes(fault, finetune):
    train = shlex.join(finetune(*LONG, *EACH_STEP, "--out", "disk/run"))
    resume = shlex.join(zoo_command("finetune", "--resume", "disk/run"))
    fill = "cat /dev/zero > disk/filler || true" if fault else ""
    line = f"""
        {train} 2> errors & process=$!
        until compgen -G 'disk/run/checkpoints/checkpoint-*' > names; do sleep 0.02; done
        {fill}
        wait $process && code=0 || code=$?
        echo $code > code
        find disk -name '.zoo-*' > left
        rm -f disk/filler
        {resume}
        cp disk/run/model.safetensors .
    """
    mounts = "mkdir disk", "mount -t tmpfs -o size=4m tmpfs disk"
    done = run(isolated(*mounts, command=line))
    errors = Path("errors").read_text()
    assert done.returncode == 0, errors + done.stderr
    if fault:
        assert Path("code").read_text() == "6\n"
        assert "No space left on device" in last_line(errors)
        assert RESUME in last_line(errors)
        assert "resuming disk/run after" in done.stderr
    else:
        assert Path("code").read_text() == "0\n"
    assert Path("left").read_text() == ""
    assert Path("model.safetensors").read_bytes() == train_whole(finetune, *LONG)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
def test_memory_too_small_for_torch_exits_with_6(finetune):
    done = run(["prlimit", "--as=1000000000", *finetune("--out", "run")])
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("zoo: error: a library cannot be loaded: ImportError: libtorch")
    assert "free some memory" in last_line(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
def test_file_size_limit_stops_with_6(finetune):
    options = ["--train", "all", "--epochs", "2", "--batch-size", "8", *EACH_STEP]
    done = run(["prlimit", "--fsize=12000", *finetune(*options, "--out", "run")])
    assert done.returncode == 6, done.stderr
    assert "File too large" in last_line(done.stderr)
    assert not Path("run").exists()
    done = run(["prlimit", "--fsize=12000000", *finetune(*options, "--out", "run")])
    assert done.returncode == 0, done.stderr


@needs_mounts
def test_read_only_cache_trains_to_the_same_bytes(finetune, monkeypatch):
    options = ["--train", "head", "--epochs", "2"]
    whole = train_whole(finetune, *options)
    Path("cache/zoo").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    mounts = "mount --bind cache cache", "mount -o remount,ro,bind cache"
    train = shlex.join(finetune(*options, "--out", "run"))
    done = run(isolated(*mounts, "! touch cache/file 2> /dev/null", command=train))
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr
    assert model("run") == whole


def test_user_without_home_is_told_what_to_set(finetune, monkeypatch, stranger):
    options = ["--train", "head", "--epochs", "2"]
    whole = train_whole(finetune, *options)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    train = [*stranger.split(), *finetune(*options, "--out", "run")]
    done = run(train)
    assert done.returncode == 6, done.stderr
    assert "the user has no home folder; set HOME" in last_line(done.stderr)
    folders = {name: str(Path(name).absolute()) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    done = run(train, **folders)
    assert done.returncode == 0, done.stderr
    assert model("run") == whole


@pytest.mark.parametrize("streams", ["> /dev/full", ">&- 2>&-", "2> /dev/full"])
def test_training_without_usable_streams_writes_the_same_bytes(streams, finetune):
    options = ["--train", "all", "--epochs", "2"]
    line = f"{shlex.join(finetune(*options, '--out', 'run'))} {streams}"
    done = run(["bash", "-c", line])
    assert done.returncode == (6 if streams == "> /dev/full" else 0), done.stderr
    assert model("run") == train_whole(finetune, *options)


def test_training_goes_on_when_nobody_reads_its_errors(finetune):
    command = finetune(*LONG, "--out", "run")
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        next(line for line in process.stderr if line.startswith("all  2/"))
        process.stderr.close()
        code = process.wait(SECONDS)
    assert code == 0
    assert model("run") == train_whole(finetune, *LONG)


def test_ascii_locale_keeps_names_of_classes(finetune, image_folder):
    data = Path(shutil.copytree(image_folder, "data"))
    for split in ("train", "val", "test"):
        (data / split / "flag").rename(data / split / "flag é \u4e2d")
    train = finetune("--data", data, "--train", "all", "--epochs", "1", "--out", "run")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(train, **ascii_only)
    assert done.returncode == 3
    assert "in the encoding of the system, ascii; set LC_ALL=C.UTF-8" in last_line(done.stderr)
    done = run(train, LC_ALL="C", LANG="C")
    assert done.returncode == 0, done.stderr
    assert "flag é \u4e2d" in zoo.load("run").classes


def test_second_training_in_one_folder_stops_at_once(finetune):
    with started(finetune(*LONG, *EACH_STEP, "--out", "run"), stderr=subprocess.DEVNULL) as first:
        wait_until(has_checkpoint, first)
        first.send_signal(signal.SIGSTOP)
        second = run(zoo_command("finetune", "--resume", "run"))
        third = run(finetune(*LONG, "--out", "run"))
        first.send_signal(signal.SIGCONT)
        code = first.wait(SECONDS)
    for done in (second, third):
        assert done.returncode == 7
        assert "another run is writing into run" in last_line(done.stderr)
    assert code == 0
    assert model("run") == train_whole(finetune, *LONG)


def test_two_trainings_fill_one_cache(finetune, own_cache):
    options = ["--train", "head", "--epochs", "3"]
    silent = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with (
        started(finetune(*options, "--out", "a"), **silent) as first,
        started(finetune(*options, "--out", "b"), **silent) as second,
    ):
        assert (first.wait(SECONDS), second.wait(SECONDS)) == (0, 0)
    third = run(finetune(*options, "--out", "c", "--json"))
    assert json.loads(third.stdout)["backbone_forwards"] == 0
    assert model("a") == model("b") == model("c")


def children(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        return [int(child) for child in path.read_text().split()]
    except OSError:
        return []


def test_killed_loader_worker_stops_with_6_and_is_resumed(finetune):
    options = [*LONG, "--workers", "1", "--augment", "flip"]
    command = finetune(*options, *EACH_STEP, "--out", "run")
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_until(has_checkpoint, process)
        while process.poll() is None:  # one that has read all of its epoch is not missed
            for child in children(process):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        errors = process.stderr.read()
        assert process.wait(SECONDS) == 6, errors
    assert "killed by SIGKILL" in last_line(errors)
    assert RESUME in last_line(errors)
    done = run(zoo_command("finetune", "--resume", "run"))
    assert done.returncode == 0, done.stderr
    assert model("run") == train_whole(finetune, *options)


@pytest.mark.parametrize("change", ["missing", "half", "page"])
def test_image_that_changes_is_named_and_training_resumes(change, finetune, image_folder):
    data = Path(shutil.copytree(image_folder, "data"))
    options = ["--data", data, *LONG]
    image = sorted((data / "train" / "flag").iterdir())[0]
    command = finetune(*options, *EACH_STEP, "--out", "run")
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_until(has_checkpoint, process)
        shutil.copyfile(image, "aside")
        if change == "missing":
            image.unlink()
        else:
            whole = Path("aside").read_bytes()
            image.write_bytes(whole[: len(whole) // 2] if change == "half" else b"<html>404")
        errors = process.stderr.read()
        assert process.wait(SECONDS) == 3, errors
    assert image.name in last_line(errors)
    assert RESUME in last_line(errors)
    refused = run(zoo_command("finetune", "--resume", "run"))
    assert refused.returncode == 2
    assert "data.fingerprint" in last_line(refused.stderr)
    shutil.copyfile("aside", image)
    done = run(zoo_command("finetune", "--resume", "run"))
    assert done.returncode == 0, done.stderr
    assert model("run") == train_whole(finetune, *options)


SLOW = """
    import time
    from pathlib import Path

    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("slownet", "plugin_slow:build", (zoo.Head("1"),), zoo.Preprocess(size=8))

    def build(weights=None):
        from torch import nn

        class Slow(nn.Flatten):
            def forward(self, inputs):
                if Path("run/checkpoints/plan.json").exists():
                    Path("forward").touch()
                    time.sleep(0.5)
                return super().forward(inputs)

        return nn.Sequential(Slow(), nn.Linear(192, 2))
"""


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, ["--recipe", "probe"]),
        (signal.SIGTERM, ["--train", "head", "--epochs", "3"]),
    ],
)
def test_signal_in_feature_pass_is_resumed(number, options, install, image_folder, own_cache):
    """Before a probe, and before a head that is trained by epochs."""
    install("slow", SLOW)
    train = ["finetune", "slow/slownet", "--data", image_folder, "--weights", "none"]
    train = zoo_command(*train, "--device", "cpu", *options)
    silent = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with started([*train, "--out", "run"], **silent) as process:
        wait_until(Path("forward").exists, process)
        process.send_signal(number)
        errors = process.stderr.read()
        code = process.wait(SECONDS)
    assert code == 128 + number, errors
    assert RESUME in last_line(errors)
    done = run(zoo_command("finetune", "--resume", "run"))
    assert done.returncode == 0, done.stderr
    whole = run([*train, "--out", "whole"])
    assert whole.returncode == 0, whole.stderr
    assert model("run") == model("whole")


def test_second_signal_stops_at_once_and_loses_no_checkpoint(finetune):
    command = finetune(*LONG, *EACH_STEP, "--out", "run")
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_until(has_checkpoint, process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
        code = process.wait(SECONDS)
    assert code in (130, 143), errors
    assert "Traceback" not in errors
    done = run(zoo_command("finetune", "--resume", "run"))
    assert done.returncode == 0, done.stderr
    assert model("run") == train_whole(finetune, *LONG)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_closed_terminal_loses_no_checkpoint(handler, finetune):
    """SIGHUP ends a process like SIGKILL does, unless nohup makes it ignore that."""
    command = finetune(*LONG, *EACH_STEP, "--out", "run")
    silent = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    silent["preexec_fn"] = partial(signal.signal, signal.SIGHUP, handler)
    with started(command, **silent) as process:
        wait_until(has_checkpoint, process)
        process.send_signal(signal.SIGHUP)
        ended = process.wait(SECONDS) != 0
    assert ended is (handler == signal.SIG_DFL)
    if ended:
        done = run(zoo_command("finetune", "--resume", "run"))
        assert done.returncode == 0, done.stderr
        assert "resuming run after" in done.stderr
    assert model("run") == train_whole(finetune, *LONG)
