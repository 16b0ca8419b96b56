"""Check torch, the devices, the precision and the engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.diagnosis.check import ERROR, WARNING, Check, guarded
from zoo.errors import ExitCode, ZooError, one_line
from zoo.options.table import ENGINES

if TYPE_CHECKING:
    import torch

# What the drivers of accelerators create, and how torch is called that is built for them.
DRIVERS = {"/dev/nvidiactl": ("NVIDIA GPU", "CUDA"), "/dev/kfd": ("AMD GPU", "ROCm")}


def examine_computing() -> Iterator[Check]:
    """Yield the checks of what needs torch; a torch that cannot be imported is one of them."""
    try:
        import torch
        import torchvision
    except Exception as error:  # a native library that is missing or of another version
        hint = "install torch and torchvision of versions that fit: https://pytorch.org"
        problem = f"torch or torchvision cannot be imported: {one_line(error)}"
        yield Check("torch", problem, ERROR, hint, ExitCode.ENVIRONMENT)
        return
    builds = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    libraries = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built = [f"{name} {version}" for name, version in libraries.items() if version]
    facts = {**builds, "cuda": torch.version.cuda, "hip": torch.version.hip}
    yield Check("torch", f"{torch.__version__} for {', '.join([*built, 'the CPU'])}", facts=facts)
    yield from guarded("devices", _examine_devices)
    yield from guarded("precision", partial(_on_device, _examine_precision))
    yield from guarded("engines", partial(_on_device, _examine_engines))


def _on_device(examine: Any) -> Iterator[Check]:
    """Yield the checks of the device that `auto` selects."""
    from zoo.engine.runtime.device import resolve_device

    yield from examine(resolve_device("auto")[0])


def _examine_devices() -> Iterator[Check]:
    """Yield the devices, each that fails, and what keeps torch from using the machine."""
    import torch

    from zoo.engine.runtime.device import available_cores, resolve_device

    working: dict[str, str] = {}
    failed = []
    for name in _device_names():
        try:
            device, _ = resolve_device(name)
            working[name] = _describe(device)
        except ZooError as error:
            failed.append(Check.failed("devices", error))
    selected, reason = resolve_device("auto")
    listed = ", ".join(f"{name} ({what})" for name, what in working.items())
    summary = f"{listed}; auto selects {selected}"
    facts = {"devices": working, "auto": str(selected), "reason": reason}
    yield Check("devices", summary, facts=facts)
    yield from failed
    yield from _unused_accelerators()
    threads, cores = torch.get_num_threads(), available_cores()
    if threads < cores and "OMP_NUM_THREADS" in os.environ:
        stated = os.environ["OMP_NUM_THREADS"]
        summary = f"torch uses {threads} of {cores} cores: OMP_NUM_THREADS={stated}"
        yield Check("devices", summary, WARNING, "unset OMP_NUM_THREADS to use all")


def _device_names() -> list[str]:
    import torch

    kinds = {"cuda": torch.cuda, "xpu": torch.xpu}
    counts = {kind: module.device_count() for kind, module in kinds.items()}
    numbered = [f"{kind}:{index}" for kind, count in counts.items() for index in range(count)]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *numbered, *mps]


def _describe(device: torch.device) -> str:
    import torch

    from zoo.engine.runtime.device import available_cores

    if device.type in ("cuda", "xpu"):
        about = getattr(torch, device.type).get_device_properties(device)
        return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if device.type == "cpu":
        return f"{available_cores()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return "Apple GPU"


def _unused_accelerators() -> Iterator[Check]:
    import torch

    for path, (what, library) in DRIVERS.items():
        if not Path(path).exists() or torch.cuda.is_available():
            continue
        built = torch.version.cuda if library == "CUDA" else torch.version.hip
        summary = f"there is an {what}, and torch {torch.__version__} cannot use it"
        if built is None:
            hint = f"install torch for {library}: https://pytorch.org"
        else:
            hint = f"it needs a driver that supports {library} {built}"
        yield Check("devices", summary, WARNING, hint)


def _examine_precision(device: torch.device) -> Iterator[Check]:
    from zoo.engine.runtime.device import resolve_precision

    precision, reason = resolve_precision("auto", device)
    summary = f"{precision}, {reason.removeprefix('auto: ')}"
    yield Check("precision", summary, facts={"auto": precision, "reason": reason})


def _examine_engines(device: torch.device) -> Iterator[Check]:
    from zoo.engine.backends.choice import engine_class, without_option

    usable, others, facts = [], [], {}
    for name in ENGINES:
        kind = engine_class(name)
        facts[name] = {"version": kind.version(), "error": None}
        try:
            kind.check(device)
            usable.append(f"{name} {kind.version()}")
        except ZooError as error:
            reason = without_option(name, error)
            facts[name]["error"] = reason
            others.append(f"not {name}: {reason} ({error.hint})")
    yield Check("engines", ", ".join([*usable, *others]), facts=facts)
