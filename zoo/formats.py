"""What a file is by its first bytes, whatever its name, and what to do with it instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

# Bytes from the start of a file that `identify` needs.
START = 512
# The longest header of a safetensors file that is read: that of a network with 100,000 tensors.
MAX_HEADER = 16 << 20


@dataclass(frozen=True)
class FileKind:
    """A format that weights are mistaken for, or come in.

    Args:
        name: of the format, after "is".
        remedy: what to do with such a file; `{path}` is its quoted path.
        pickled: whether `zoo import` may open it.
        weights: whether it may contain weights at all.
    """

    name: str
    remedy: str
    pickled: bool = False
    weights: bool = True

    def hint(self, path: Path) -> str:
        """Return what to do with a file of this format."""
        return self.remedy.format(path=quote(str(path)))


IMPORT = "convert it with `zoo import {path}`; zoo opens safetensors only"
UNPACK = "unpack it, and give the file of tensors in it"
ZIP = "if `torch.save` wrote it, convert it with `zoo import {path}`, else unpack it"
OTHERS = "give the weights as safetensors, or as a PyTorch checkpoint to `zoo import`"
DOWNLOAD = "download the file itself: the address is of a page about it, or the server refused"

SAFETENSORS = FileKind("a safetensors file", "")
PICKLE = FileKind("a pickle, which can run code when it is opened", IMPORT, pickled=True)
EMPTY = FileKind("empty", "a download or a copy broke off; fetch it again", weights=False)
HTML = FileKind("an HTML page, not weights", DOWNLOAD, weights=False)
JSON = FileKind("a JSON file, not weights", "give the .safetensors file itself", weights=False)
POINTER = FileKind(
    "a pointer of Git LFS, not the file that it stands for",
    "run `git lfs pull` where it was cloned",
    weights=False,
)
STARTS: tuple[tuple[bytes, FileKind], ...] = (
    *((bytes([0x80, protocol]), PICKLE) for protocol in range(2, 6)),
    (b"PK\x03\x04", FileKind("a zip archive", ZIP, pickled=True)),
    (b"\x1f\x8b", FileKind("compressed by gzip", UNPACK)),
    (b"BZh", FileKind("compressed by bzip2", UNPACK)),
    (b"\xfd7zXZ\x00", FileKind("compressed by xz", UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileKind("compressed by Zstandard", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", UNPACK)),
    (b"version https://git-lfs.github.com/spec/", POINTER),
    (b"GGUF", FileKind("GGUF, the format of llama.cpp", OTHERS)),
    (b"\x89HDF\r\n\x1a\n", FileKind("HDF5, as Keras writes it", OTHERS)),
    (b"\x93NUMPY", FileKind("an array of NumPy", OTHERS)),
    (b"\x89PNG\r\n\x1a\n", FileKind("a PNG image", "give its path as data", weights=False)),
    (b"\xff\xd8\xff", FileKind("a JPEG image", "give its path as data", weights=False)),
    (b"\x7fELF", FileKind("a program", OTHERS, weights=False)),
)
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<!--")
TAR_MAGIC = slice(257, 262)


def header_length(start: bytes) -> int | None:
    """Return the length of a safetensors header; None where the file is no such."""
    length = int.from_bytes(start[:8], "little")
    return length if start[8:9] == b"{" and 2 <= length <= MAX_HEADER else None


def identify(start: bytes) -> FileKind | None:
    """Return what a file is by its first `START` bytes; None for an unknown format.

    The first eight bytes of a safetensors file, the header's length, can equal the start of another
    format; the ninth decides.
    """
    if not start:
        return EMPTY
    if header_length(start) is not None:
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04") and b"/data.pkl" in start:
        return PICKLE  # as `torch.save` writes it
    for magic, kind in STARTS:
        if start.startswith(magic):
            return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(MARKUP):
        return HTML
    if text.startswith((b'{"', b"{\n", b"[{", b"{}")):
        return JSON
    if start[TAR_MAGIC] == b"ustar":
        return FileKind("a tar archive", UNPACK)
    return None
