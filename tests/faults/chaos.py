"""Run ckpt-chaos over `checkpoint_writer.py`, in children of one process that has imported torch.

Usage: python chaos.py FOLDER CRASHES [--keep N] [--in-place]

The injector, the crash points and the verdicts are those of `ckpt-chaos run`. It starts a program
for each crash and each resume; here they are forked, since importing torch takes seconds. At
most CRASHES of the crash points are taken, evenly spaced in each mode. Prints one row of JSON for
each.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

import checkpoint_writer
import torch
from ckpt_chaos import byo, runner
from ckpt_chaos.targets.common import arm_from_env

TEMPORARY = re.compile(r"\.zoo-.*\.part")


def run_forked(
    command: list[str], environment: dict[str, str], cwd: str, timeout: int
) -> tuple[int, str]:
    """Replace `byo._run`: call the writer in a child; return its exit code and its output."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(write_checkpoints(command, environment))
        status = os.waitpid(child, 0)[1]
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read()


def write_checkpoints(arguments: list[str], environment: dict[str, str]) -> int:
    os.environ.update(environment)
    arm_from_env(0, lazy=True)
    try:
        checkpoint_writer.main(arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def events_of(path: Path) -> list[tuple[int, str, str, bool]]:
    """Replace `byo._events`: temporaries have one name, so that those of two runs are equal."""
    return [(n, kind, TEMPORARY.sub(".part", name), torn) for n, kind, name, torn in read(path)]


def main(work: str, crashes: str, *options: str) -> None:
    torch.set_num_threads(1)
    contract = {} if "--in-place" in options else {"checkpoint_glob": "{out}/checkpoint-*"}
    rows = byo.run_byo(
        ["{out}", *options],
        None,
        Path(work),
        max_points=int(crashes),
        result_file="{out}/result.json",
        step_regex=r"resumed from epoch (\d+)",
        modes=byo.MODES,
        ignore_size=True,  # its seconds have more or fewer digits
        grace=5.0,
        **contract,
    )
    for row in rows:
        print(
            json.dumps(
                {name: getattr(row, name) for name in ("label", "crashed", "drift")}
                | {"verdict": row.verdict}
            )
        )


if __name__ == "__main__":
    read = runner._events
    byo._run, byo._events = run_forked, events_of
    main(*sys.argv[1:])
