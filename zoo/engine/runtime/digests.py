"""Digests of the body of a network: its tensors, modules and code outside the heads."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn


def digest_tensors(module: nn.Module, heads: tuple[str, ...]) -> str:
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


def digest_modules(module: nn.Module, heads: tuple[str, ...]) -> str:
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
