"""Resolve device and precision; number of reader threads; memory errors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator

import torch

from zoo.data.loader import AHEAD, worker_problem
from zoo.data.workers import start_method
from zoo.errors import EnvironmentProblem, UsageError, did_you_mean
from zoo.modelfile import PRECISIONS
from zoo.models.plugin_errors import is_out_of_memory

# Above these, processes read images for a GPU: they take a second to start.
MIN_CORES, MIN_IMAGES = 4, 2000
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def resolve_device(choice: str) -> tuple[torch.device, str]:
    """Resolve a device.

    Args:
        choice: `auto`, `cpu`, `cuda`, `cuda:1`, or any other device name of torch.

    Returns:
        The device, and the reason for it.

    Raises:
        UsageError: torch has no device of that name.
        EnvironmentProblem: the device is not available.
    """
    if choice == "auto":
        for kind, available in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        ):
            if available:
                return torch.device(kind), f"auto: {kind} is available"
        return torch.device("cpu"), "auto: no accelerator is available"
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        hint = did_you_mean(choice, DEVICES, f"try one of {', '.join(DEVICES)}")
        raise UsageError(f"torch knows no device {choice!r}", hint) from error
    if device.type == "meta":
        raise UsageError("the meta device computes nothing", "give auto, cpu or cuda")
    try:
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "--device auto selects an available one"
        raise EnvironmentProblem(f"device {choice} is not available: {reason}", hint) from error
    return device, "as given"


def resolve_precision(choice: str, device: torch.device) -> tuple[str, str]:
    """Resolve a precision on a device, and return it with the reason for it.

    Raises:
        UsageError: it is none of `auto`, `fp32` and `bf16`.
    """
    if choice not in (choices := ("auto", *PRECISIONS)):
        hint = did_you_mean(choice, choices, f"one of {', '.join(choices)}")
        raise UsageError(f"no precision is named {choice!r}", hint)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_has_bf16()
    kind = "GPU" if device.type == "cuda" else "CPU"
    if choice == "auto" and native:
        return "bf16", f"auto: native on this {kind}"
    if choice == "auto":
        return "fp32", "auto: bf16 is not native on this device"
    if choice == "bf16" and not native:
        return choice, "as given, though not native on this device"
    return choice, "as given"


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def reader_threads(device: torch.device) -> tuple[int, int]:
    """Return the number of threads that read images for a device, and of batches to prefetch.

    On the CPU, all cores alternate between decoding a batch and computing on it. Decoding in
    parallel with OpenMP stalls the slowest thread at each barrier; on two cores that was slower by
    up to a tenth (`benchmarks/forward_pass.py`). The threads of the engine `openvino` read
    batches of their own (`ImageReader.pending`). For a GPU, more than four threads wait
    for the interpreter's lock, see `reader_processes`.
    """
    if device.type == "cpu":
        return torch.get_num_threads(), 0
    return min(available_cores(), 4), AHEAD


def reader_processes(device: torch.device, images: int) -> int:
    """Return the number of processes that read so many images for a device; 0 for threads.

    Threads wait for the interpreter's lock. On 16 cores beside an H100, one reads 407 JPEGs/s,
    four 1,026, and sixteen 778; sixteen processes read 5,601 in the pass of resnet50, which the GPU
    computes at 11,807 (`benchmarks/gpu.json`).
    """
    # A spawned process imports torch first, and a daemon may not start any.
    forks = start_method() == "fork"
    if device.type != "cuda" or not forks or multiprocessing.current_process().daemon:
        return 0
    cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return cores if cores > MIN_CORES and images >= MIN_IMAGES else 0


def cpu_has_bf16() -> bool:
    """Whether the CPU has bfloat16 instructions (AVX512-BF16 or AMX).

    Without them torch emulates bfloat16, and is slower than in float32.
    """
    # Private in every torch release so far, and may be renamed.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a forward pass; weights stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def as_environment_error(error: BaseException, what: str) -> EnvironmentProblem | None:
    """Convert an out-of-memory error or the death of a worker; None for any other error.

    Args:
        error: the original exception.
        what: failed operation.
    """
    if is_out_of_memory(error):
        return EnvironmentProblem(f"out of memory in {what}", "give a smaller --batch-size")
    return worker_problem(error) if isinstance(error, RuntimeError) else None


@contextlib.contextmanager
def environment_errors(what: str) -> Iterator[None]:
    """Raise out-of-memory errors, here or in a worker, as `EnvironmentProblem`.

    Args:
        what: operation, for the message.

    Raises:
        EnvironmentProblem: memory ran out inside the block, or a worker was killed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if problem := as_environment_error(error, what):
            raise problem from error
        raise
