"""Rules by the device."""

import pytest
import torch

from zoo.engine.runtime import device
from zoo.engine.runtime.device import MIN_IMAGES, reader_processes

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
