"""What a training ran with: versions, machine and threads."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from zoo import __version__
from zoo.data.formats import decoder_versions
from zoo.files import library_versions


def versions() -> dict[str, str]:
    """Return the versions of zoo and of the libraries that decode and compute."""
    libraries = library_versions("torch", "torchvision", "timm")
    return {"zoo": __version__, **libraries, **decoder_versions()}


def environment(device: str) -> dict[str, Any]:
    """Return versions, platform, threads, and the name of a GPU.

    Args:
        device: of the training.
    """
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "gpu": gpu,
    }
