"""Crashes of the writer of checkpoints at every file boundary, and the order of its fsyncs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import FOLDER

pytestmark = pytest.mark.faults

MODES = {"before", "torn", "term", "unsynced"}
ALL = 10_000


def crash(most: int, *options: str) -> list[dict]:
    """Return the rows of ckpt-chaos: what came back after a crash at each file boundary.

    Args:
        most: number of crashes; evenly spaced ones where there are more boundaries.
        options: of `checkpoint_writer.py`.
    """
    command = [sys.executable, FOLDER / "chaos.py", "chaos", str(most), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    verdicts = Counter((row["verdict"], row["crashed"]) for row in rows)
    print(f"ckpt-chaos {' '.join(options)}: {len(rows) - 1} crashes, {dict(verdicts)}")
    return rows


@pytest.mark.parametrize(
    ("keep", "most"), [pytest.param(1, 12, marks=pytest.mark.slow), (1, ALL), (9, ALL)]
)
def test_crash_at_every_file_boundary_loses_nothing(keep, most):
    control, *crashes = crash(most, "--keep", str(keep))
    assert (control["crashed"], control["verdict"]) == (False, "PASS")
    assert {row["label"].rpartition("[")[2][:-1] for row in crashes} == MODES
    assert len(crashes) == most if most < ALL else len(crashes) > 100
    assert all(row["crashed"] for row in crashes)
    assert not [row for row in crashes if row["drift"]]
    assert not [row for row in crashes if row["verdict"] != "PASS"]


def test_crash_of_checkpoint_written_in_place_is_found():
    """The injector finds what it is for: a checkpoint that overwrites the one before."""
    control, *crashes = crash(ALL, "--in-place")
    assert (control["crashed"], control["verdict"]) == (False, "PASS")
    failed = [row["label"] for row in crashes if row["verdict"] == "HARD_FAIL"]
    assert failed
    assert all("torn" in label for label in failed)


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


def traced(*options: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run the writer of checkpoints under strace; return its result and its system calls."""
    command = ["strace", "-f", "-y", "-o", "trace", *options, sys.executable]
    writer = [FOLDER / "checkpoint_writer.py", Path.cwd() / "out"]
    done = subprocess.run([*command, *writer], capture_output=True, text=True)
    return done, Path("trace").read_text().splitlines()


@pytest.mark.slow
@needs_strace
def test_files_of_checkpoint_are_fsynced_before_its_rename():
    done, calls = traced("-e", "trace=fsync,rename,renameat,renameat2")
    assert done.returncode == 0, done.stderr
    synced: list[str] = []
    published = 0
    for number, call in enumerate(calls):
        if found := re.search(r"fsync\(\d+<(.*)>\)\s+= 0", call):
            synced.append(found[1])
        elif found := re.search(r'rename.*"(.*)".*"(.*)/checkpoint-\d+".*= 0', call):
            folder, parent = found[1], found[2]
            names = ("state.safetensors", "state.json", "manifest.json")
            assert synced[-4:] == [*(f"{folder}/{name}" for name in names), folder]
            assert re.search(rf"fsync\(\d+<{parent}>\)", calls[number + 1])
            published += 1
    assert published == 3


@needs_strace
@pytest.mark.parametrize("call", [pytest.param("fsync", marks=pytest.mark.slow), "rename"])
def test_checkpoint_whose_system_call_fails_is_not_published(call):
    """In its first checkpoint; the file that is written before takes two of the calls."""
    inject = {"fsync": "fsync:error=EIO:when=3", "rename": "rename:error=EIO:when=2"}[call]
    done, calls = traced("-e", f"trace={call}", "-e", f"inject={inject}")
    assert sum("(INJECTED)" in line for line in calls) == 1
    assert done.returncode == 1
    assert "EnvironmentProblem" in done.stderr
    assert "Input/output error" in done.stderr
    assert [path.name for path in Path("out").iterdir()] == ["best"]


@pytest.mark.slow
@needs_strace
def test_checkpoint_without_failing_call_is_published():
    done, calls = traced("-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1000")
    assert done.returncode == 0
    assert not sum("(INJECTED)" in line for line in calls)
    assert Path("out/checkpoint-000003").is_dir()
