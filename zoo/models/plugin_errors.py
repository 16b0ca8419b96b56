"""Run plugin code, and attribute its exceptions to the plugin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from zoo.errors import BrokenBackbone, ZooError, one_line

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
        BrokenBackbone: the block raised anything but a `ZooError`, an `OSError` or an
            out-of-memory error.
    """
    try:
        yield
    except (ZooError, OSError):
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise BrokenBackbone(f"{what}: {one_line(error)}", "--debug shows where") from error
