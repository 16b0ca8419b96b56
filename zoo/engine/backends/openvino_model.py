"""Compile a converted network by OpenVINO; as a program, try it, since native code may crash.

A process that runs this file imports neither torch nor zoo, so that a trial takes about a second.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any

TELEMETRY = "openvino_telemetry"
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


# The process that has created the `Core`.
_owner: int | None = None


@cache
def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send an event for each import.

    It does without the package of its telemetry where that is not installed.
    """
    absent = TELEMETRY not in sys.modules
    if absent:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if absent:
            del sys.modules[TELEMETRY]
    return openvino


@cache
def core() -> Any:
    """Return OpenVINO's `Core`, the same one for the whole process.

    Each `Core` installs an alternate stack for signals, and restores the one before when it ends.
    After two that did not end in the reverse order, that is memory which is gone: the next signal
    with a handler of Python's, such as Ctrl-C, is a segmentation fault.
    """
    global _owner
    _owner = os.getpid()
    return import_openvino().Core()


@cache
def computes_in(precision: str) -> bool:
    """Whether OpenVINO computes in a precision on this CPU; else it does in float32, silently.

    Args:
        precision: `fp32` or `bf16`.
    """
    library, wanted = import_openvino(), PRECISIONS[precision]
    operations = library.opset13
    values = operations.parameter([1], library.Type.f32)
    smallest = library.Model([operations.relu(values)], [values])
    compiled = core().compile_model(smallest, "CPU", {"INFERENCE_PRECISION_HINT": wanted})
    used: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return used == wanted


def stopped_by_fork() -> bool:
    """Whether OpenVINO's threads are those of the process that this one was forked from.

    A computation would wait for them without end.
    """
    return _owner not in (None, os.getpid())


def compile_network(
    converted: Any,
    shape: list[int],
    bytes_: bool,
    mean: list[float],
    std: list[float],
    precision: str,
    threads: int,
) -> Any:
    """Compile a converted network for batches of one size.

    Args:
        converted: the network, unchanged.
        shape: `[images, channels, height, width]`.
        bytes_: whether inputs are bytes with channels last, which OpenVINO normalizes; else they
            are normalized floats with channels first.
        mean: of each channel, in 0..1.
        std: of each channel.
        precision: `fp32` or `bf16`.
        threads: of the CPU.
    """
    library = import_openvino()
    model = converted.clone()
    model.reshape(shape)
    if bytes_:
        steps = library.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(library.Type.u8)
        steps.input().tensor().set_layout(library.Layout("NHWC"))
        steps.input().model().set_layout(library.Layout("NCHW"))
        convert = steps.input().preprocess().convert_element_type(library.Type.f32)
        convert.mean([255 * value for value in mean])
        convert.scale([255 * value for value in std])
        model = steps.build()
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "THROUGHPUT",
    }
    return core().compile_model(model, "CPU", settings)


def main() -> None:
    """Compute on noise: the first argument is the network's path, the second has the settings."""
    import numpy as np

    path, settings = sys.argv[1], json.loads(sys.argv[2])
    converted = core().read_model(path)
    random = np.random.default_rng(0)
    for bytes_ in (True, False):
        compiled = compile_network(converted, bytes_=bytes_, **settings)
        images, channels, height, width = settings["shape"]
        if bytes_:
            size = (images, height, width, channels)
            compiled([random.integers(0, 256, size, dtype=np.uint8)])
        else:
            compiled([random.standard_normal(settings["shape"], dtype=np.float32)])


if __name__ == "__main__":
    main()
