"""No test leaves a process behind, however it ends, nor depends on how pytest was started."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import started

ROOT = Path(__file__).parents[1]
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    # A zombie has ended, and waits for init to collect it.
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_failing_test_leaves_no_process():
    processes, children = [], []

    def fail():
        with started([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as process:
            processes.append(process)
            children.append(int(process.stdout.readline()))
            assert alive(children[0])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    (process,), (child,) = processes, children
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_processes_are_started_by_helper_only():
    """`subprocess.run` kills its process itself; `Popen` does not."""
    starting = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and "Popen(" in path.read_text(encoding="utf-8")
    ]
    assert starting == ["processes.py"]


def test_interrupts_reach_started_processes():
    program = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with started([sys.executable, "-c", program]) as process:
        assert process.wait(60) == 0
