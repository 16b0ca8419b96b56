"""Suppress what Pillow and the libraries below it print about a file that is read.

Their messages are either errors, which Pillow raises too, or about metadata, which is ignored.
Applications are not affected in what they set up themselves: their filters of warnings and their
log handlers take precedence.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import warnings

from PIL import Image

from zoo.data.formats import PLUGINS


def suppress_library_messages() -> None:
    """Suppress warnings, log records without a handler, and messages of libtiff, in the process."""
    # Pillow warns at half of MAX_PIXELS.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
    readers = "|".join(["PIL", *(plugin.module for plugin in PLUGINS)])
    warnings.filterwarnings("ignore", category=UserWarning, module=rf"({readers})\b", append=True)
    # Records that no handler takes are printed otherwise.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    _suppress_libtiff()


def _suppress_libtiff() -> None:
    """Unset the function of libtiff that prints errors; Pillow unsets that of warnings only."""
    # Symbols of a library are those of its dependencies too; a build may lack libtiff, or hide it.
    with contextlib.suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
