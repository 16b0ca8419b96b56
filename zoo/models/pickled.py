"""Read a pickled checkpoint without running code, in bounded memory and time.

`weights_only=True` restricts what a pickle can name, but neither the memory that it allocates nor
the faults of the parsers below it. So `zoo.models.unpickle`, a program, opens it with its address
space limited, and writes the tensors as safetensors for this process to read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError
from zoo.files import environment_problem
from zoo.tensorfile import TensorFile, open_weights, read_tensors

PROGRAM = "zoo.models.unpickle"
# The file, its tensors, copies of those that share storage, and the file that is written.
COPIES = 4
SPARE_BYTES = 512 << 20
SECONDS, BYTES_PER_SECOND = 60, 20 << 20


@dataclass(frozen=True)
class Pickled:
    """The content of a pickled checkpoint.

    Args:
        file: its tensors, and the digest of the pickle.
        keys: under which the state dict is, outermost first.
        others: names of entries that are no tensors.
        classes: names of classes, where the checkpoint has them; else empty.
    """

    file: TensorFile
    keys: tuple[str, ...]
    others: tuple[str, ...]
    classes: tuple[str, ...]


def read_pickled(path: Path) -> Pickled:
    """Read a checkpoint that `torch.save` wrote.

    Raises:
        WeightsError: it is missing, damaged, needs code, has no state dict, or takes more memory or
            time than a checkpoint of its size.
        EnvironmentProblem: its tensors cannot be written.
    """
    with open_weights(path) as file, tempfile.TemporaryFile() as out:
        size = os.fstat(file.fileno()).st_size
        seconds = SECONDS + size // BYTES_PER_SECOND
        # By descriptor: what was checked is what is opened, and a kill leaves no temporary file.
        numbers = (file.fileno(), out.fileno())
        command = [sys.executable, "-P", "-m", PROGRAM, *(f"/dev/fd/{n}" for n in numbers)]
        try:
            done = subprocess.run(
                [*command, str(_memory(size)), str(seconds)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds + SECONDS,
                pass_fds=numbers,
            )
        except subprocess.TimeoutExpired as error:
            raise WeightsError(f"{path} takes more than {seconds:,} s to open") from error
        answer = _answer(path, done)
        if "errno" in answer:
            raise environment_problem(
                OSError(answer["errno"], answer["strerror"]), Path(tempfile.gettempdir())
            )
        if "error" in answer:
            raise WeightsError(f"{path} {answer['error']}", answer.get("hint"))
        tensors = read_tensors(Path(f"/dev/fd/{out.fileno()}")).tensors
    keys, others, classes = (tuple(answer[name]) for name in ("keys", "others", "classes"))
    return Pickled(TensorFile(tensors, {}, answer["sha256"]), keys, others, classes)


def _memory(size: int) -> int:
    """Return how many bytes the reader of a file may allocate."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(COPIES * size + SPARE_BYTES, physical)


def _answer(path: Path, done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Return the answer of the reader.

    Raises:
        WeightsError: it ended without one.
    """
    try:
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer
    except (ValueError, AssertionError) as error:
        code = done.returncode
        ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        message = f"{path} is damaged: the process that opens it ended {ended}"
        raise WeightsError(": ".join([message, *last])) from error
