"""Rules by the device."""

import pytest
import torch

from zoo.engine.runtime import device
from zoo.engine.runtime.device import MIN_IMAGES, reader_processes, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(device, "available_cores", lambda: 16)


def test_processes_read_many_images_for_a_gpu(sixteen_cores, monkeypatch):
    monkeypatch.setattr(device, "start_method", lambda: "fork")
    assert reader_processes(GPU, MIN_IMAGES) == 16
    assert reader_processes(GPU, MIN_IMAGES - 1) == reader_processes(CPU, MIN_IMAGES) == 0
    # Processes of torchrun share the machine.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert reader_processes(GPU, MIN_IMAGES) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert reader_processes(GPU, MIN_IMAGES) == 0


def test_threads_read_where_processes_are_spawned(sixteen_cores, monkeypatch):
    monkeypatch.setattr(device, "start_method", lambda: "spawn")
    assert reader_processes(GPU, MIN_IMAGES) == 0


@pytest.mark.parametrize(
    ("native", "choice", "expected"),
    [
        (True, "auto", ("bf16", "auto: native on this CPU")),
        (False, "auto", ("fp32", "auto: bf16 is not native on this device")),
        (True, "bf16", ("bf16", "as given")),
        (False, "bf16", ("bf16", "as given, though not native on this device")),
        (False, "fp32", ("fp32", "as given")),
    ],
)
def test_precision_by_instructions_of_the_cpu(monkeypatch, native, choice, expected):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: native)
    assert resolve_precision(choice, CPU) == expected
