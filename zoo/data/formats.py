"""The formats of images that are read: those of Pillow that are safe, and those of its plugins."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image, features

from zoo.errors import one_line
from zoo.files import library_versions

log = logging.getLogger("zoo")

# An allow-list: Pillow's other formats include PostScript, which runs a program on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")

# fmt: off
SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})
# fmt: on

# Before the suffix of an activation map, after the name of its image.
EXPLAIN = ".explain"


@dataclass(frozen=True)
class PillowPlugin:
    """A package that adds a format to Pillow.

    Args:
        module: that is imported.
        package: that installs it.
        suffixes: of its files.
        signatures: bytes that its files have at the start, or at position 4.
        register: function of the module that registers the format; empty where the import does.
        builtin: name of the feature of Pillow itself that makes it unnecessary.
    """

    module: str
    package: str
    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...]
    register: str = ""
    builtin: str = ""

    @property
    def superseded(self) -> bool:
        """Whether Pillow itself reads its files."""
        return bool(self.builtin) and bool(features.check(self.builtin))

    @property
    def needed(self) -> bool:
        """Whether its files cannot be read, as neither Pillow nor the package reads them."""
        return not self.superseded and self.module not in _load_plugins()


PLUGINS = (
    PillowPlugin(
        "pillow_heif",
        "pillow-heif",
        (".heic", ".heif", ".hif"),
        (b"ftypheic", b"ftypheix", b"ftypheim", b"ftyphevc", b"ftypmif1"),
        register="register_heif_opener",
    ),
    PillowPlugin("pillow_avif", "pillow-avif-plugin", (".avif",), (b"ftypavif",), builtin="avif"),
    PillowPlugin("pillow_jxl", "pillow-jxl-plugin", (".jxl",), (b"\xff\x0a", b"JXL \r\n\x87\n")),
)


@lru_cache(maxsize=1)
def _load_plugins() -> frozenset[str]:
    """Import the installed plugins of `PLUGINS`, which register their formats.

    Returns:
        The modules that were imported. One that does not fit this Pillow is warned of.
    """
    Image.init()
    loaded = set()
    for plugin in PLUGINS:
        if plugin.superseded or find_spec(plugin.module) is None:
            continue
        try:
            module = import_module(plugin.module)
            if plugin.register:
                getattr(module, plugin.register)()
        except Exception as error:
            hint = f"`pip install --upgrade pillow {plugin.package}`"
            log.warning("%s cannot be imported: %s; %s", plugin.package, one_line(error), hint)
        else:
            loaded.add(plugin.module)
    return frozenset(loaded)


def readable_formats() -> tuple[str, ...]:
    """Return the formats that are read, by Pillow's names: also those that others registered."""
    _load_plugins()
    return _readable(len(Image.OPEN))


@lru_cache(maxsize=4)
def _readable(_: int) -> tuple[str, ...]:
    others = (
        name
        for name, (factory, _) in Image.OPEN.items()
        if not getattr(factory, "__module__", "").startswith("PIL.")
    )
    return tuple(dict.fromkeys([*(name for name in FORMATS if name in Image.OPEN), *others]))


def recognize_format(start: bytes) -> str | None:
    """Return the format, of those that are read, whose signature a file begins with; else None.

    Args:
        start: its first bytes; fewer than 16 only where the file has no more.
    """
    for name in readable_formats():
        accept = Image.OPEN[name][1]
        # A text is why Pillow cannot read a file that it recognizes.
        with suppress(Exception):  # of a file that is shorter than the signature
            if accept is not None and accept(start) is True:
                return name
    return None


def may_be_turned(file: BinaryIO) -> bool:
    """Whether a PNG file may state an orientation, before its pixels or behind them."""
    file.seek(0)
    content = file.read()
    return any(key in content for key in (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type"))


@lru_cache(maxsize=4)
def _suffixes(_: int) -> frozenset[str]:
    added = set(readable_formats()) - set(FORMATS)
    others = {suffix for suffix, name in Image.EXTENSION.items() if name in added}
    return SUFFIXES.union(others)


def decoder_versions() -> dict[str, str]:
    """Return the versions of what decodes images: Pillow, its JPEG library, installed packages."""
    packages = ("simplejpeg", *(plugin.package for plugin in PLUGINS))
    versions = library_versions("pillow", *packages)
    jpeg = features.version_feature("libjpeg_turbo") or features.version_codec("jpg")
    return versions | ({"libjpeg": jpeg} if jpeg else {})


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of a format that is read.

    What `zoo predict --explain` writes beside `cat.jpg`, `cat.jpg.explain.png`, is no image of a
    data set.
    """
    _load_plugins()
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a million of them
    if suffix == ".png" and stem.endswith(EXPLAIN) and is_image(stem.removesuffix(EXPLAIN)):
        return False
    return suffix.lower() in _suffixes(len(Image.EXTENSION))


def missing_plugin(suffix: str, start: bytes = b"") -> PillowPlugin | None:
    """Return the plugin that reads a file and is not installed; None where there is none.

    Args:
        suffix: of the file's name.
        start: its first bytes, at least 16; empty to go by the suffix alone.
    """
    for each in PLUGINS:
        signed = start.startswith(each.signatures) or start[4:].startswith(each.signatures)
        if (suffix.lower() in each.suffixes or signed) and each.needed:
            return each
    return None


def may_be_image(name: str) -> bool:
    """Whether a file is an image; reading it names the package of its format if that is missing."""
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    return is_image(name) or missing_plugin(suffix) is not None


def describe_missing(suffixes: Iterable[str]) -> str | None:
    """Return what to install to read files of these suffixes, or None."""
    needed = {each: plugin.package for each in suffixes if (plugin := missing_plugin(each))}
    if not needed:
        return None
    packages = " ".join(dict.fromkeys(needed.values()))
    return f"to read {' and '.join(sorted(needed))}, `pip install {packages}`"
