"""Running the code of plugins, so that what it raises names its owner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from zoo.errors import BrokenBackbone, ZooError, one_line

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or off it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


@contextlib.contextmanager
def guard(what: str) -> Iterator[None]:
    """Turn whatever a plugin's code raises, an exit too, into an error for people.

    Args:
        what: was going on, as the beginning of a sentence.

    Raises:
        BrokenBackbone: the block raised something that is neither zoo's own error, nor the
            system's, nor memory running out.
    """
    try:
        yield
    except (ZooError, OSError):
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise BrokenBackbone(f"{what}: {one_line(error)}", "--debug shows where") from error
