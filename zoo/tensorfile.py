"""Weights files: the one way from a path to tensors.

A file is opened once without waiting, refused unless it is regular and fits into memory, recognised
by its first bytes, read once into one buffer, hashed, compared with the expected digest, and only
then parsed. So a file that changes meanwhile is never loaded unchecked, and one of N bytes takes
N bytes of memory: its tensors are views of the buffer, those of a zip archive of `torch.save` too.

Nothing here unpickles, except `read_checkpoint`, which opens published `.pth` files with
`weights_only=True` to convert them once. A user's pickle is opened by another program,
`zoo.models.unpickle`. No other module opens weights, as a test checks.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.files import NotRegular, open_regular, parse_json
from zoo.formats import SAFETENSORS, START, FileKind, header_length, identify
from zoo.tensorstream import DTYPES
from zoo.tensorstream import tensor_bytes as tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "__metadata__"
MAX_DIMENSIONS = 32
# Of the tensors' bytes in memory, for vectorised kernels.
ALIGNMENT = 64
CHUNK = 1 << 24


class OtherDigest(WeightsError):
    """A file has another digest than the expected one."""


@dataclass(frozen=True)
class TensorFile:
    """The content of a safetensors file.

    Args:
        tensors: by name, on the CPU; views of one buffer.
        metadata: of the file, as text.
        sha256: of the file.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class Content:
    """The bytes of a file.

    Args:
        data: of the whole file; a view of a buffer for safetensors and pickles.
        sha256: of the data.
        memory: the file without a name that the data is mapped from; None for other data.
    """

    data: bytes | memoryview
    sha256: str
    memory: FileIO | None = None

    def load(self) -> Any:
        """Unpickle a PyTorch checkpoint with `weights_only`; tensors of a zip archive are mapped.

        Raises:
            Exception: whatever torch raises.
        """
        import io

        import torch

        settings: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
        if self.memory is None or self.data[:2] != b"PK":
            return torch.load(io.BytesIO(self.data), **settings)
        return torch.load(f"/proc/self/fd/{self.memory.fileno()}", mmap=True, **settings)

    @property
    def kind(self) -> FileKind | None:
        """What the file is by its first bytes; None for an unknown format."""
        return identify(bytes(self.data[:START]))


class CheckedPath(type(Path())):  # type: ignore[misc]
    """The path of a file together with its verified content.

    Converters of published weights take a path by contract. With this one they read the verified
    bytes, and the file is opened once.
    """

    content: Content | None = None


def check_path(path: Path, sha256: str | None = None) -> CheckedPath:
    """Read a file and return its path with the content.

    Raises:
        WeightsError: as `read_content`.
    """
    checked = CheckedPath(path)
    checked.content = read_content(path, sha256)
    return checked


def read_file(path: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """Read a regular file, and return its bytes and their sha256.

    Raises:
        WeightsError: as `read_content`.
    """
    content = read_content(path, sha256, any_kind=True)
    return bytes(content.data), content.sha256


def read_content(path: Path, sha256: str | None = None, any_kind: bool = False) -> Content:
    """Read a regular file.

    Args:
        path: of the file; the content of a `CheckedPath` is returned without reading.
        sha256: the expected digest, or its first digits.
        any_kind: read also what contains no weights by its first bytes, such as an HTML page.

    Raises:
        WeightsError: it is missing, not a regular file, unreadable, larger than the memory, of a
            kind that contains no weights, or has another digest.
    """
    content = path.content if isinstance(path, CheckedPath) else None
    if content is None:
        content = _read_regular(path, any_kind)
    digest = content.sha256
    if sha256 and not digest.startswith(sha256.lower()):
        raise OtherDigest(
            f"{path} is not the file that was published: its sha256 starts with "
            f"{digest[:16]}, expected {sha256[:16]}",
            "delete it and fetch it again",
        )
    return content


def file_kind(path: Path) -> FileKind | None:
    """Return what a file is by its first bytes; None for an unknown format.

    Raises:
        WeightsError: it is missing, not a regular file, or unreadable.
    """
    with open_weights(path) as file:
        return identify(_read_start(path, file))


def open_weights(path: Path) -> FileIO:
    """Open a regular file for reading, without waiting.

    Raises:
        WeightsError: it is missing, not a regular file, or unreadable.
    """
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist") from error
    except NotRegular as error:
        raise WeightsError(f"{path} {str(error.strerror).removeprefix('it ')}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"cannot read {path}: {reason}") from error


def _read_start(path: Path, file: FileIO) -> bytes:
    try:
        return os.pread(file.fileno(), START, 0)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _read_regular(path: Path, any_kind: bool) -> Content:
    with open_weights(path) as file:
        size = os.fstat(file.fileno()).st_size
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            message = f"{path} has {size >> 20:,} MiB, more than the memory of this machine"
            raise WeightsError(message, "it is damaged, or needs a larger machine")
        start = _read_start(path, file)
        kind = identify(start)
        if kind is not None and not kind.weights and not any_kind:
            raise WeightsError(f"{path} is {kind.name}", kind.hint(path))
        try:
            if kind is SAFETENSORS:
                return _read_aligned(path, file, size, header_length(start) or 0)
            if kind is not None and kind.pickled and hasattr(os, "memfd_create"):
                return _read_into_memory(file)
            data = file.readall()
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
        return Content(data, hashlib.sha256(data).hexdigest())


def _read_into_memory(file: FileIO) -> Content:
    """Read a file into an unnamed one in memory, which no process can change and torch can map."""
    memory = FileIO(os.memfd_create("zoo"), "r+")
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    while count := file.readinto(chunk):
        digest.update(chunk[:count])
        written = 0
        while written < count:
            written += memory.write(chunk[written:count])
    data = memoryview(mmap.mmap(memory.fileno(), 0, access=mmap.ACCESS_READ))
    return Content(data, digest.hexdigest(), memory)


def _read_aligned(path: Path, file: FileIO, size: int, header: int) -> Content:
    """Read a safetensors file into a buffer in which its tensors are aligned."""
    before = -(8 + header) % ALIGNMENT
    data = memoryview(mmap.mmap(-1, before + size))[before:]
    digest, position = hashlib.sha256(), 0
    while count := file.readinto(data[position : position + CHUNK]):
        digest.update(data[position : position + count])
        position += count
    if position != size:
        raise WeightsError(f"{path} changed while it was read", "try again when it is complete")
    return Content(data, digest.hexdigest())


def read_tensors(path: Path, sha256: str | None = None) -> TensorFile:
    """Read a safetensors file.

    Raises:
        WeightsError: as `read_content`; or it is damaged, or not safetensors.
    """
    content = read_content(path, sha256)
    kind = content.kind
    if kind is not SAFETENSORS and kind is not None:
        raise WeightsError(f"{path} is {kind.name}", kind.hint(path))
    try:
        if kind is None:
            raise ValueError("its header is missing, truncated or too long")
        start = 8 + (header_length(bytes(content.data[:9])) or 0)
        entries, metadata = _parse_header(content.data[8:start], len(content.data) - start)
        tensors = dict(_views(memoryview(content.data)[start:], entries))
    except (ValueError, RecursionError, RuntimeError) as error:
        other = f"`zoo import {quote(str(path))}` reads other files of tensors"
        advice = None if path.suffix == ".safetensors" else other
        raise WeightsError(f"{path} is not a valid safetensors file: {error}", advice) from error
    return TensorFile(tensors, metadata, content.sha256)


def map_tensors(path: Path) -> TensorFile:
    """Map a safetensors file into memory, of which only what is used is read.

    Returns:
        Tensors that are private views of the file; without a digest.

    Raises:
        WeightsError: it is missing, not a regular file, unreadable or damaged.
    """
    with open_weights(path) as file:
        try:
            start = 8 + (header_length(_read_start(path, file)) or 0)
            # Private, since torch has no tensors of memory that cannot be written.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            entries, metadata = _parse_header(data[8:start], len(data) - start)
            return TensorFile(dict(_views(data[start:], entries)), metadata, "")
        except (ValueError, RecursionError, RuntimeError, OSError) as error:
            raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error


@dataclass(frozen=True)
class _Entry:
    """A tensor of a header: name, torch's dtype, shape, and where its bytes begin and end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _parse_header(data: bytes | memoryview, size: int) -> tuple[list[_Entry], dict[str, str]]:
    """Parse a header strictly, and return its entries by position, and the metadata.

    Args:
        data: the header.
        size: of what follows it, which the tensors must cover.

    Raises:
        ValueError: it is damaged.
    """
    header = parse_json(bytes(data))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not text")
    entries = sorted(
        (_entry(name, value) for name, value in header.items()),
        key=lambda entry: (entry.begin, entry.end),
    )
    position = 0
    for entry in entries:
        if entry.begin != position:
            problem = "overlaps another" if entry.begin < position else "follows a gap"
            raise ValueError(f"tensor {entry.name} {problem}")
        position = entry.end
    if position != size:
        raise ValueError(f"its tensors take {position:,} bytes, and it has {size:,}")
    return entries, metadata


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name} is not described by dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"tensor {name} has the unknown dtype {code!r:.40}")
    for numbers in (shape, offsets):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or len(numbers) > MAX_DIMENSIONS:
            raise ValueError(f"tensor {name} has an impossible shape or position")
    if len(offsets) != 2:
        raise ValueError(f"tensor {name} has no position")
    dtype, itemsize = DTYPES[code]
    if math.prod(shape) * itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"tensor {name} has not the size of its shape {shape}")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _views(data: memoryview, entries: list[_Entry]) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor by name, a view of the data.

    Raises:
        ValueError, RuntimeError: values or shapes are impossible.
    """
    import torch

    for entry in entries:
        dtype = getattr(torch, entry.dtype)
        if entry.begin == entry.end:
            yield entry.name, torch.empty(entry.shape, dtype=dtype)
            continue
        raw = torch.frombuffer(data[entry.begin : entry.end], dtype=torch.uint8)
        if dtype == torch.bool and bool((raw > 1).any()):
            raise ValueError(f"tensor {entry.name} has values other than true and false")
        if entry.begin % dtype.itemsize:
            tensor = raw.clone().view(dtype)  # written by another library than safetensors
        else:
            tensor = torch.frombuffer(data[entry.begin : entry.end], dtype=dtype)
        # In place, so that a tensor is not a view of another tensor, as those of torch.load.
        yield entry.name, tensor.resize_(entry.shape)


def read_checkpoint(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a published `.pth` for conversion; only tensors and plain containers are allowed.

    Args:
        path: of the file.
        sha256: the expected digest, or its first digits.

    Returns:
        The state dict as saved, with torch's version metadata; of a training checkpoint the
        averaged weights where it has any, as timm selects them.

    Raises:
        WeightsError: it is damaged, has another digest, or contains more than a state dict.
    """
    import pickle

    import torch

    content = read_content(path, sha256)
    kind = content.kind
    if kind is not None and not kind.pickled:
        raise WeightsError(f"{path} is {kind.name}, not a PyTorch checkpoint")
    try:
        loaded = content.load()
    except (RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError) as error:
        # torch's own message is a page on how to disable the check.
        message = f"{path} is not a checkpoint that loads without running code"
        hint = f"`zoo import {quote(str(path))}` names what it calls"
        raise WeightsError(message, hint) from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not (
        loaded and all(torch.is_tensor(tensor) for tensor in loaded.values())
    ):
        raise WeightsError(f"{path} contains something other than a state dict")
    return loaded  # type: ignore[return-value]
