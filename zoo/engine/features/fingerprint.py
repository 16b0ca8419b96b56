"""Fingerprint of everything beside the images that determines a network's features."""

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
from zoo.data.formats import decoder_versions
from zoo.engine.runtime.memory_format import MEMORY_FORMATS, resolve_memory_format
from zoo.engine.runtime.network import Network
from zoo.files import canonical_json, library_versions
from zoo.models.provenance import provenance_of
from zoo.records import to_dict

# Incremented when the features of a network, or their layout on disk, change.
# 2: images are resized by torch, whose last digits are not those of Pillow.
FORMAT = 2


# Facts of the machine, which may change the last bits of features, and not what they mean.
MACHINE = ("device", "threads")


def network_facts(network: Network, batch: int) -> dict[str, Any]:
    """Return all that can change a bit of a network's features, as plain data.

    These are tensors outside the heads, modules and the code of their classes, preprocess,
    precision, memory format, device, threads, batch size, and versions of libraries.

    Args:
        network: that computes the features.
        batch: images per forward pass.
    """
    provenance = provenance_of(network.module)
    heads = tuple(f"{path}." for path in network.paths)
    gpu = torch.cuda.get_device_name(network.device) if network.device.type == "cuda" else ""
    libraries = library_versions("torch", "torchvision", "timm", "numpy") | decoder_versions()
    return {
        "format": FORMAT,
        "backbone": provenance.backbone.id,
        "kwargs": dict(provenance.kwargs),
        "heads": network.paths,
        "weights": _digest_tensors(network.module, heads),
        "modules": _digest_modules(network.module, heads),
        "preprocess": to_dict(network.preprocess),
        "precision": network.precision,
        "device": f"{network.device.type} {gpu or torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "batch": batch,
        "versions": {"zoo": __version__, **libraries},
        **_memory_format(network),
    }


def network_fingerprint(network: Network, batch: int) -> tuple[str, dict[str, Any]]:
    """Return the fingerprint of a network's features, and their description.

    Args:
        network: that computes the features.
        batch: images per forward pass.
    """
    provenance, facts = provenance_of(network.module), network_facts(network, batch)
    description = {
        "backbone": provenance.backbone.id,
        "weights": provenance.base.tag or provenance.base.kind,
        "size": [network.preprocess.height, network.preprocess.width],
        "precision": network.precision,
        "device": network.device.type,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32], description


def _memory_format(network: Network) -> dict[str, Any]:
    """Return what a network's memory format adds to its device: nothing for the automatic one."""
    facts: dict[str, Any] = {"contiguous": network.contiguous} if network.contiguous else {}
    automatic, _ = resolve_memory_format("auto", network.device)
    if network.memory_format != MEMORY_FORMATS[automatic]:
        facts["memory_format"] = str(network.memory_format)
    return facts


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
    # Non-persistent buffers, which are in no state dict, affect features too.
    yield from module.named_parameters()
    yield from module.named_buffers()


def _digest_modules(module: nn.Module, heads: tuple[str, ...]) -> str:
    """Digest types, settings and source code of the modules outside the heads."""
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
    """Yield the source files of the classes of modules."""
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
