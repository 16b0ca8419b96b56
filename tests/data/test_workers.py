"""Worker processes whose system or dataset fails: an error within seconds, and no process left."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tests.processes import started
from zoo.data.dataset import SampleTransform
from zoo.data.decode import decode
from zoo.data.loader import load_batches
from zoo.data.user_dataset import DatasetSplit
from zoo.errors import EnvironmentProblem
from zoo.spec import Preprocess

SMALL = SampleTransform(Preprocess(16))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SCRIPT = """
import os, sys, time
import torch
from torch.utils.data import Dataset
import zoo
from zoo.data.loader import load_batches
from zoo.data.dataset import SampleTransform
from zoo.data.user_dataset import DatasetSplit
from zoo.spec import Preprocess

class Images(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.full((3, 64, 64), float(index)), index % 2

def read(workers=2):
    split = DatasetSplit("train", Images(), tuple(range(24)), (0, 1) * 12)
    transform = SampleTransform(Preprocess(64))
    try:
        for batch in load_batches(split, transform, range(24), 4, workers):
            print(batch.indices.tolist(), batch.inputs[:, 0, 0, 0].int().tolist(), flush=True)
    except zoo.ZooError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


class Items(Dataset):
    """Items whose images are what a function returns for their index."""

    def __init__(self, image):
        self.image = image

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.image(index), 0


def load(image, workers=2):
    split = DatasetSplit("train", Items(image), tuple(range(8)), (0,) * 8)
    return list(load_batches(split, SMALL, range(8), 2, workers))


def script(tmp_path, code):
    """Write a script, and return the command that runs it."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + textwrap.dedent(code))
    return [sys.executable, str(path)]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@LINUX
def test_workers_need_no_shared_memory_nor_temporary_folder(tmp_path):
    command = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    apart = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or run([*apart, command]).returncode:
        pytest.skip("no mount namespaces here")
    shell = f'{command}; head -c 2m /dev/zero > /dev/shm/full 2>/dev/null; exec "$@"'
    environment = {**os.environ, "TMPDIR": str(tmp_path / "missing")}
    done = run([*apart, shell, "sh", *script(tmp_path, "read()")], env=environment)
    lines = [f"{[*range(n, n + 4)]} {[*range(n, n + 4)]}" for n in range(0, 24, 4)]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stderr


@contextmanager
def no_more_files():
    """Open files until the system refuses, and close them at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (max(int(file.name) for file in Path("/proc/self/fd").iterdir()), hard),
    )
    opened = []
    try:
        with suppress(OSError):
            while True:
                opened.append(os.dup(0))
        yield
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@LINUX
def test_too_many_open_files_is_environment_problem(tmp_path):
    load(lambda index: torch.zeros(3, 16, 16))  # imports what reading needs
    (tmp_path / "a.png").touch()
    with no_more_files():
        with pytest.raises(EnvironmentProblem, match=r"cannot start 2 processes.*ulimit -n"):
            load(lambda index: torch.zeros(3, 16, 16))
        with pytest.raises(EnvironmentProblem, match=r"a\.png: Too many open files"):
            decode(tmp_path / "a.png")
    assert not multiprocessing.active_children()


class Odd(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(one)


def test_exception_in_worker_is_raised_whatever_its_kind():
    def fail(kind):
        def image(index):
            raise kind

        return image

    class Transform(SampleTransform):
        def collate(self, targets):
            raise Odd("of the task", 2)

    split = DatasetSplit("train", Items(lambda index: torch.zeros(3, 16, 16)), (0,), (0,))
    with pytest.raises(RuntimeError, match="Odd: of the task") as raised:
        list(load_batches(split, Transform(Preprocess(16)), [0], 1, 1))
    assert "in collate" in raised.value.__notes__[0]
    with pytest.raises(EnvironmentProblem, match="it exited with code 3; with 0 workers"):
        load(fail(SystemExit(3)))
    assert not multiprocessing.active_children()


def test_worker_seeds_and_info_are_those_of_torch():
    def image(index):
        info = get_worker_info()
        drawn = [random.random(), np.random.rand(), torch.rand(()).item(), info.id, info.seed % 997]
        return torch.tensor([*drawn, info.num_workers]).repeat(3, 16, 16)[..., :16].clone()

    ours = torch.cat([batch.inputs for batch in load(image)])
    loader = DataLoader(Items(image), 2, num_workers=2, generator=torch.Generator())
    theirs = torch.cat([images for images, _ in loader])
    assert torch.equal(ours, theirs)
    assert get_worker_info() is None


@pytest.mark.slow
@LINUX
def test_interrupt_ends_workers_that_hang(tmp_path):
    command = script(
        tmp_path,
        """
        def hang(self, index):
            os.write(1, f"hangs {os.getpid()}\\n".encode())  # whole, beside the other worker's
            time.sleep(600)

        Images.__getitem__ = hang
        read()
        """,
    )
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        assert process.wait(60) == -signal.SIGINT
        assert time.monotonic() - begun < 20
        assert process.stderr.read().count("KeyboardInterrupt") == 1
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python's default applies")
def test_processes_are_forked_on_linux_unless_the_program_sets_another_method() -> None:
    program = """
    import multiprocessing
    from zoo.data.workers import start_method
    # As the default of Python 3.14.
    multiprocessing.context._default_context._default_context = multiprocessing.get_context("spawn")
    print(start_method(), multiprocessing.get_start_method(allow_none=True))
    multiprocessing.set_start_method("forkserver")
    print(start_method())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "fork None\nforkserver\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_unguarded_script_gets_advice_on_main_guard(tmp_path, method):
    unguarded = f"""
    import multiprocessing
    multiprocessing.set_start_method({method!r}, force=True)
    read()
    """
    done = run(script(tmp_path, unguarded))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("UsageError: a process that reads images")
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert "memory" not in done.stderr
    if method == "spawn":
        guarded = """
        if __name__ == "__main__":
            import multiprocessing
            multiprocessing.set_start_method("spawn")
            read(1)
        """
        done = run(script(tmp_path, guarded))
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 6), done.stderr
