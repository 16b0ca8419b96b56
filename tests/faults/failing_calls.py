"""Run a training as often as it makes a system call, each time with another one of them failing.

Usage: python failing_calls.py CALL ERROR MOST COMMAND...

Each training runs in a child of one process that has imported torch, since importing it takes
seconds. strace attaches to it and fails its n-th CALL by ERROR. Then another child resumes the run.
The last training is the first of which no call fails, or the one after MOST. Prints a row of JSON
for each.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path

import torch
import torchvision  # noqa: F401 - imported once

import zoo.api.training  # noqa: F401 - imported once
from zoo.cli import main as zoo_main
from zoo.engine.run import finetune  # noqa: F401 - imported once

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.processes import started

# From the kernel's prctl.h.
PR_SET_PTRACER, ANY = 0x59616D61, -1


def run_forked(command: list[str], errors: Path, inject: str | None = None) -> int:
    """Run zoo in a child, traced if a call of it fails; return its exit code."""
    ready, release = os.pipe()
    child = os.fork()
    if not child:
        os._exit(run_child(command, errors, ready, release))
    os.close(ready)
    with traced(child, inject) if inject else nullcontext():
        os.close(release)  # which ends what it waits for
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_child(command: list[str], errors: Path, ready: int, release: int) -> int:
    os.close(release)
    with errors.open("wb") as file, Path("stdout").open("wb") as stdout:
        os.dup2(file.fileno(), 2)
        os.dup2(stdout.fileno(), 1)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
    os.read(ready, 1)
    os.close(ready)
    try:
        zoo_main(command)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


@contextmanager
def traced(child: int, inject: str) -> Iterator[None]:
    """Attach strace to a process, and wait for its end."""
    call = inject.partition(":")[0]
    command = ["strace", "-f", "-y", "-o", "trace", "-e", f"trace={call}", "-p", str(child)]
    command += ["-e", f"inject={inject}"]
    with started(command, stderr=subprocess.PIPE) as tracer:
        line = tracer.stderr.readline()
        assert "attached" in line, line
        yield
        tracer.communicate()


def failed_calls() -> list[str]:
    """Return the files of the calls that failed."""
    failed, unfinished = [], {}
    for line in Path("trace").read_text().splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            unfinished[thread] = call
        elif "(INJECTED)" in call:
            call = unfinished[thread] if "resumed>" in call else call
            failed.append(re.search(r'[<"]([^>"]*)', call)[1])
    return failed


def row_of(number: int, call: str, error: str, command: list[str]) -> dict:
    """Train with a failing call, resume, and return what was seen."""
    folder = Path(f"run-{number}")
    errors, again = Path(f"errors-{number}"), Path(f"again-{number}")
    inject = f"{call}:error={error}:when={number}"
    code = run_forked([*command, "--out", str(folder)], errors, inject)
    left = [str(path) for path in Path.cwd().rglob(".zoo-*")]
    checkpoints = len([*folder.glob("checkpoints/checkpoint-*")])
    row = {"number": number, "failed": failed_calls(), "code": code, "left": left}
    row |= {"checkpoints": checkpoints, "errors": errors.read_text()}
    row["printed"] = Path("stdout").read_text()
    if folder.exists():
        row["kept"] = [path.name for path in folder.iterdir()]
        row["again"] = run_forked(["finetune", "--resume", str(folder)], again)
        row["resumed"] = again.read_text()
        row["model"] = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return row


def main(call: str, error: str, most: str, *command: str) -> None:
    torch.set_num_threads(1)
    for number in range(1, int(most) + 1):
        row = row_of(number, call, error, list(command))
        print(json.dumps(row), flush=True)
        if not row["failed"]:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
