"""Fingerprint of everything beside the images that determines a network's features."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from zoo import __version__
from zoo.data.formats import decoder_versions
from zoo.engine.backends.choice import engine_class
from zoo.engine.runtime.digests import digest_modules, digest_tensors
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


def network_facts(network: Network, batch: int, engine: str = "torch") -> dict[str, Any]:
    """Return all that can change a bit of a network's features, as plain data.

    These are tensors outside the heads, modules and the code of their classes, preprocess,
    precision, memory format, device, threads, batch size, and versions of libraries.

    Args:
        network: that computes the features.
        batch: images per forward pass.
        engine: that computes them.
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
        "weights": digest_tensors(network.module, heads),
        "modules": digest_modules(network.module, heads),
        "preprocess": to_dict(network.preprocess),
        "precision": network.precision,
        "device": f"{network.device.type} {gpu or torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "batch": batch,
        "versions": {"zoo": __version__, **libraries},
        **_memory_format(network),
        **_engine(engine),
    }


def network_fingerprint(
    network: Network, batch: int, engine: str = "torch"
) -> tuple[str, dict[str, Any]]:
    """Return the fingerprint of a network's features, and their description.

    Args:
        network: that computes the features.
        batch: images per forward pass.
        engine: that computes them.
    """
    provenance, facts = provenance_of(network.module), network_facts(network, batch, engine)
    description = {
        "backbone": provenance.backbone.id,
        "weights": provenance.base.tag or provenance.base.kind,
        "size": [network.preprocess.height, network.preprocess.width],
        "precision": network.precision,
        "device": network.device.type,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32], description


def _engine(name: str) -> dict[str, Any]:
    """Return what an engine adds to torch, whose version is a fact of all features."""
    return {} if name == "torch" else {"engine": [name, engine_class(name).version()]}


def _memory_format(network: Network) -> dict[str, Any]:
    """Return what a network's memory format adds to its device: nothing for the automatic one."""
    facts: dict[str, Any] = {"contiguous": network.contiguous} if network.contiguous else {}
    automatic, _ = resolve_memory_format("auto", network.device)
    if network.memory_format != MEMORY_FORMATS[automatic]:
        facts["memory_format"] = str(network.memory_format)
    return facts
