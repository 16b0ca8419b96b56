"""Trainings of which one system call fails, each that writes in turn."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.conftest import FOLDER

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]

FEW, ALL = 3, 1000
MESSAGES = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}
OPTIONS = ["--train", "all", "--epochs", "2", "--batch-size", "24", "--checkpoint-every", "0"]


def fail_each(call: str, error: str, most: int, command: list[str]) -> list[dict]:
    """Return a row for each training of which a call failed, and one of the training without."""
    script = [sys.executable, FOLDER / "failing_calls.py", call, error, str(most)]
    done = subprocess.run([*script, *command[3:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = [row for row in rows if row["failed"]]
    codes = dict(Counter(row["code"] for row in failed))
    print(f"{call} {error}: {len(failed)} failed, exit codes {codes}")
    return rows


@pytest.mark.parametrize(
    ("call", "error", "most"),
    [
        pytest.param("rename", "EIO", FEW, marks=pytest.mark.slow),
        ("write", "ENOSPC", ALL),
        ("write", "EIO", ALL),
        ("fsync", "EIO", ALL),
        ("rename", "EIO", ALL),
    ],
)
def test_failing_call_loses_nothing_and_training_resumes(call, error, most, finetune):
    subprocess.run(finetune(*OPTIONS, "--out", "whole"), check=True, capture_output=True)
    whole = sha256(Path("whole/model.safetensors").read_bytes()).hexdigest()
    rows = fail_each(call, error, most, finetune(*OPTIONS))
    for row in rows:
        check(row, MESSAGES[error], whole)
    if most == ALL:
        *failed, control = rows
        assert len(failed) > {"write": 25, "fsync": 20, "rename": 8}[call]
        assert (control["failed"], control["code"]) == ([], 0)
        # Before the first checkpoint, and after it.
        assert {row["checkpoints"] for row in failed} >= {0, 1}


def is_fatal(row: dict, path: str) -> bool:
    """Whether a training ends where a call on a path fails."""
    name = Path(path).name
    if name == "stdout":  # one of its writes can fail although the output is complete
        return "use   zoo predict" not in row["printed"]
    # An old checkpoint that cannot be removed takes space only.
    return f"run-{row['number']}" in path and not name.startswith("checkpoint-")


def check(row: dict, message: str, whole: str) -> None:
    """Check what is left after a failing call, and what becomes of it."""
    print(row["number"], row["code"], *row["failed"])
    last = row["errors"].splitlines()[-1] if row["errors"] else ""
    fatal = any(is_fatal(row, path) for path in row["failed"])
    assert row["code"] == (6 if fatal else 0), row
    assert (message in last) is fatal, row
    assert "Traceback" not in row["errors"]
    assert row["left"] == []
    if "model" not in row:
        assert (fatal, row["checkpoints"]) == (True, 0), row
        return
    assert (row["again"], row["model"]) == (0, whole), row
    if fatal and "run.json" not in row["kept"]:
        assert f"resume it with `zoo finetune --resume run-{row['number']}`" in last
        assert f"resuming run-{row['number']} after" in row["resumed"]
