import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmarks.sides.watch import Failed, watch

ROOT = Path(__file__).parents[2]
CHILD = "import time; held = b'x' * (200 << 20); time.sleep(1.5)"


def side(program, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return watch([sys.executable, "-c", textwrap.dedent(program)], folder, environment)


def ends(process):
    """Whether a process ends; it may not be waited for at once by whoever inherits it."""
    left = Path("/proc", process, "stat")
    for _ in range(100):
        if not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_side_says_how_far_it_is(tmp_path):
    program = """
        import time
        from benchmarks.sides.marks import EPOCH, READY, mark
        time.sleep(0.3)
        mark(READY)
        time.sleep(0.5)
        mark(EPOCH)
        mark(EPOCH)
        print("done")
    """
    done = side(program, tmp_path)
    assert done.output == "done\n"
    assert done.startup >= 0.3
    first, second = done.epochs
    assert first >= 0.5 > second
    assert done.seconds >= done.startup + first + second
    assert side("pass", tmp_path).epochs == ()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is Linux's to say")
def test_memory_is_that_of_all_processes(tmp_path):
    program = f"""
        import subprocess, sys
        held = b"x" * (100 << 20)
        subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
    """
    assert 300 < side(program, tmp_path).memory_mb < 400


def test_a_side_that_fails_ends_the_measurement_with_what_it_said(tmp_path):
    with pytest.raises(Failed, match=r"(?s)failed:.*no such luck"):
        side("raise ValueError('no such luck')", tmp_path)


def test_what_a_side_leaves_running_is_ended(tmp_path):
    program = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid)
    """
    assert ends(side(program, tmp_path).output.strip())


def test_a_measurement_that_is_terminated_ends_its_side(tmp_path):
    program = f"""
        import os, sys
        from pathlib import Path
        from benchmarks.sides.watch import watch
        told = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        watch([sys.executable, "-c", told], Path({str(tmp_path)!r}), dict(os.environ))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, env=environment) as measurement:
        output = tmp_path / "output.txt"
        while not output.exists() or not output.read_text().endswith("\n"):
            assert measurement.poll() is None
            time.sleep(0.05)
        measurement.terminate()
        assert measurement.wait() == 143
    assert ends(output.read_text().strip())
