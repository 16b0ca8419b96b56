"""The device that computes, and the precision it computes in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from zoo.data.loader import AHEAD, worker_problem
from zoo.errors import EnvironmentProblem, UsageError, did_you_mean
from zoo.modelfile import PRECISIONS
from zoo.models.plugin_errors import is_out_of_memory

KNOWN = ("auto", "cpu", "cuda", "mps", "xpu")


def resolve_device(choice: str) -> tuple[torch.device, str]:
    """Return the device that a choice means, and why.

    Args:
        choice: `auto`, `cpu`, `cuda`, `cuda:1`, or whatever else torch offers by name.

    Raises:
        UsageError: torch knows no such device.
        EnvironmentProblem: this machine has no such device.
    """
    if choice == "auto":
        for kind, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        ):
            if there:
                return torch.device(kind), f"auto: {kind} is available"
        return torch.device("cpu"), "auto: no accelerator is available"
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        hint = did_you_mean(choice, KNOWN, f"try one of {', '.join(KNOWN)}")
        raise UsageError(f"torch knows no device {choice!r}", hint) from error
    if device.type == "meta":
        raise UsageError("the meta device computes nothing", "give auto, cpu or cuda")
    try:
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else "torch refuses it"
        hint = "--device auto takes what is there"
        raise EnvironmentProblem(f"device {choice} is not available: {said}", hint) from error
    return device, "as given"


def resolve_precision(choice: str, device: torch.device) -> tuple[str, str]:
    """Return the precision that a choice means on a device, and why.

    Raises:
        UsageError: it is none of `auto`, `fp32` and `bf16`.
    """
    if choice == "auto":
        if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "auto: native on this GPU"
        if device.type == "cpu" and cpu_has_bf16():
            return "bf16", "auto: native on this CPU"
        return "fp32", "auto: what every device computes exactly"
    if choice not in PRECISIONS:
        known = ["auto", *PRECISIONS]
        hint = did_you_mean(choice, known, f"one of {', '.join(known)}")
        raise UsageError(f"no precision is named {choice!r}", hint)
    return choice, "as given"


def resolve_memory_format(device: torch.device) -> tuple[str, str]:
    """Return in what order a device has the numbers of a picture, and why: torch's name for it.

    Convolutions in bfloat16 are quickest with channels last, on the CPU (oneDNN) as on a GPU
    (cuDNN's tensor cores). Networks without them do not mind.
    """
    if device.type in ("cpu", "cuda"):
        return "channels_last", "auto: convolutions are quickest in it"
    return "contiguous_format", "auto: what every device has"


def available_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def reading(device: torch.device) -> tuple[int, int]:
    """Return how many threads read images for a device, and how many batches ahead.

    The CPU takes turns: all its cores read a batch, then all compute on it. A thread that reads
    beside torch's holds one of them up, and the others wait for that one at the end of every
    operation; on two cores that was slower by up to a tenth (`benchmarks/the_pass.py`).
    """
    if device.type == "cpu":
        return torch.get_num_threads(), 0
    return min(available_cores(), 8), AHEAD


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself (AVX512-BF16 or AMX).

    Where it does not, torch imitates it and is slower than in float32.
    """
    # Named with an underscore in every torch so far; another one may name them otherwise.
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context that a forward pass runs in: weights stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def environment_error(error: BaseException, what: str) -> EnvironmentProblem | None:
    """Return an error of the surroundings for people: memory ran out, or a worker was killed.

    Args:
        error: anything that was raised.
        what: was going on.
    """
    if is_out_of_memory(error):
        return EnvironmentProblem(f"out of memory in {what}", "give a smaller --batch-size")
    return worker_problem(error) if isinstance(error, RuntimeError) else None


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn running out of memory, here or in a worker, into an error for people.

    Raises:
        EnvironmentProblem: memory ran out inside the block, or a worker was killed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if problem := environment_error(error, what):
            raise problem from error
        raise
