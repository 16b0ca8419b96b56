"""What decides a network's features beside the pictures: the name that they are kept under."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import __version__
from zoo.engine.runtime.network import Network
from zoo.files import canonical_json, library_versions
from zoo.models.provenance import how_made
from zoo.records import to_dict

# Counted up whenever the same network would give other features, or they would be laid out anew.
FORMAT = 1


def network_fingerprint(network: Network, batch: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a network's features, a digest, and a description of them.

    The name is a digest of all that can change a bit of them: the values of everything outside
    the heads, the modules and the code of their classes, preparation, precision, device, threads,
    images in a forward pass, and the libraries' versions.

    Args:
        network: as it computes.
        batch: images in each forward pass.
    """
    made = how_made(network.module)
    inside = tuple(f"{path}." for path in network.paths)
    place = torch.cuda.get_device_name(network.device) if network.device.type == "cuda" else ""
    libraries = ("torch", "torchvision", "timm", "pillow", "numpy")
    facts = {
        "format": FORMAT,
        "backbone": made.backbone.id,
        "kwargs": dict(made.kwargs),
        "heads": network.paths,
        "weights": _digest_tensors(network.module, inside),
        "modules": _digest_modules(network.module, inside),
        "preprocess": to_dict(network.preprocess),
        "precision": network.precision,
        "device": f"{network.device.type} {place or torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "batch": batch,
        "versions": {"zoo": __version__, **library_versions(*libraries)},
    }
    about = {
        "backbone": made.backbone.id,
        "weights": made.base.tag or made.base.kind,
        "size": [network.preprocess.height, network.preprocess.width],
        "precision": network.precision,
        "device": network.device.type,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32], about


def _digest_tensors(module: nn.Module, heads: tuple[str, ...]) -> str:
    """Digest the values of parameters and buffers outside the heads."""
    digest = hashlib.sha256()
    for name, tensor in _tensors(module):
        if not name.startswith(heads):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # Buffers that are in no state dict decide features too.
    yield from module.named_parameters()
    yield from module.named_buffers()


def _digest_modules(module: nn.Module, heads: tuple[str, ...]) -> str:
    """Digest what the modules outside the heads are and how they are set, and their code."""
    digest = hashlib.sha256()
    parts = [(n, m) for n, m in module.named_modules() if not f"{n}.".startswith(heads)]
    for name, part in parts:
        kind = type(part)
        digest.update(
            f"{name} {kind.__module__}.{kind.__qualname__} {part.extra_repr()}\0".encode()
        )
    for source in sorted(set(_sources(part for _, part in parts))):
        digest.update(_digest_file(source).encode())
    return digest.hexdigest()


def _sources(parts: Iterable[nn.Module]) -> Iterator[str]:
    """Yield the files that the classes of modules are written in."""
    for part in parts:
        for kind in type(part).__mro__:
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
            if file is not None:
                yield file


@cache
def _digest_file(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
