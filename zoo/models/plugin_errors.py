"""Run plugin code, and attribute its exceptions to the plugin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch

from zoo.errors import ENVIRONMENT_ERRNOS, BrokenBackbone, ZooError, one_line
from zoo.registry.plugin_code import interrupt_of

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that host or device memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


@contextlib.contextmanager
def plugin_errors(what: str) -> Iterator[None]:
    """Convert exceptions of a plugin's code, `SystemExit` included, to `BrokenBackbone`.

    Args:
        what: failed operation, the start of the message.

    Raises:
        BrokenBackbone: the block raised anything but a `ZooError`, an interrupt, an error of the
            environment, such as a full disk, or an out-of-memory error.
    """
    handled = sys.exception()
    try:
        yield
    except (ZooError, BrokenPipeError):
        raise
    except BaseException as error:
        interrupt = interrupt_of(error, handled)
        if interrupt is not None:
            raise interrupt from None
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRNOS:
            raise
        raise BrokenBackbone(f"{what}: {one_line(error)}", _remedy(error)) from error


@contextlib.contextmanager
def naming(backbone: str) -> Iterator[None]:
    """Begin the error of a backbone with its id, where it names a module of it only.

    Args:
        backbone: its id.

    Raises:
        BrokenBackbone: the block raised it.
    """
    try:
        yield
    except BrokenBackbone as error:
        if backbone in error.message:
            raise
        raise BrokenBackbone(f"{backbone}: {error.message}", error.hint) from error


def _remedy(error: BaseException) -> str:
    """Return what a user can do about an error of a plugin's code."""
    where = "--debug shows where"
    if not isinstance(error, OSError):
        return where
    name = str(error.filename or "")
    if name and "://" not in name:  # of an HTTPError, it is the address
        return f"restore {name}, or reinstall the package of the plugin; {where}"
    network = "if it needs a network, try where there is one"
    return f"{network}; its author can register the file as zoo.Weights; {where}"
