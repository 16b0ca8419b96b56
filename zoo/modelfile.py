"""Reading and writing of tensors, and the model file; the one way to weights.

A file is read once into memory, and the same bytes are hashed and parsed, so a file that changes
meanwhile is never loaded unchecked. Nothing here unpickles, except `read_checkpoint`, which opens
published `.pth` files with `weights_only=True` to convert them once. A user's pickle is opened by
another program, `zoo.models.unpickle`.

A model file is safetensors: the full state dict under the library's own names, and in its metadata
one key, `zoo`, with canonical JSON. Equal trainings write equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError, ZooError
from zoo.files import canonical_json, write_bytes
from zoo.options.table import MEMORY_FORMATS
from zoo.records import to_dict
from zoo.spec import Head, Preprocess

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEY = "zoo"
# The name of a run's model file.
MODEL = "model.safetensors"
PRECISIONS = ("fp32", "bf16")
MAX_SIZE = 1 << 14
MAX_CHANNELS = 1 << 10
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class TensorFile:
    """The content of a safetensors file.

    Args:
        tensors: by name, on the CPU.
        metadata: of the file, as text.
        sha256: of the file.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


class CheckedPath(type(Path())):  # type: ignore[misc]
    """The path of a file together with its verified content.

    Converters of published weights take a path by contract. With this one they read the verified
    bytes, and the file is opened once.
    """

    content: tuple[bytes, str] | None = None


def check_path(path: Path, sha256: str | None = None) -> CheckedPath:
    """Read a file and return its path with the content.

    Raises:
        WeightsError: as `read_file`.
    """
    checked = CheckedPath(path)
    checked.content = read_file(path, sha256)
    return checked


def read_file(path: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """Read a regular file, and return its bytes and their sha256.

    Args:
        path: of the file; the content of a `CheckedPath` is returned without reading.
        sha256: the expected digest, or its first digits.

    Raises:
        WeightsError: it is missing, not a regular file, unreadable, or has another digest.
    """
    if isinstance(path, CheckedPath) and path.content is not None:
        data, digest = path.content
    else:
        data = _read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
    if sha256 and not digest.startswith(sha256.lower()):
        raise WeightsError(
            f"{path} is not the file that was published: its sha256 starts with "
            f"{digest[:16]}, expected {sha256[:16]}",
            "delete it and fetch it again",
        )
    return data, digest


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {problem}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """Parse the header strictly: safetensors accepts duplicate names."""
    # The first eight bytes of a safetensors file, the header's length, can equal a pickle's magic.
    if data.startswith(PICKLES) and data[8:9] != b"{":
        hint = f"convert it with `zoo import {quote(str(path))}`; zoo opens safetensors only"
        raise WeightsError(f"{path} is a pickle, which can run code when it is opened", hint)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a name appears twice")
        return dict(pairs)

    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length], object_pairs_hook=unique)
        if not isinstance(header, dict) or length > len(data) - 8:
            raise ValueError("the header is truncated")
    except (struct.error, ValueError, RecursionError) as error:
        other = f"`zoo import {quote(str(path))}` reads other files of tensors"
        advice = None if path.suffix == ".safetensors" else other
        raise WeightsError(f"{path} is not a valid safetensors file: {error}", advice) from error
    return header


def read_tensors(path: Path, sha256: str | None = None) -> TensorFile:
    """Read a safetensors file.

    Raises:
        WeightsError: it is missing, damaged, not safetensors, or has another digest.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    data, digest = read_file(path, sha256)
    metadata = _header(path, data).get("__metadata__") or {}
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error
    return TensorFile(tensors, metadata, digest)


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
    import io
    import pickle

    import torch

    data, _ = read_file(path, sha256)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError) as error:
        # torch's own message is a page on how to disable the check.
        message = f"{path} is not a checkpoint that loads without running code"
        hint = f"`zoo import {quote(str(path))}` names what it calls"
        raise WeightsError(message, hint) from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not (
        content and all(torch.is_tensor(tensor) for tensor in content.values())
    ):
        raise WeightsError(f"{path} contains something other than a state dict")
    return content  # type: ignore[return-value]


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return a state dict as the bytes of a safetensors file; shared storage is duplicated."""
    import safetensors.torch

    storages: set[int] = set()
    separate = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in storages or tensor._base is not None
        separate[name] = tensor.clone() if shared else tensor
        storages.add(storage)
    return safetensors.torch.save(separate, metadata)


@dataclass(frozen=True)
class ModelCard:
    """The description in a model file; without paths, times, hosts and worker counts.

    Args:
        backbone: id of the backbone.
        kwargs: builder arguments of the network.
        heads: as replaced.
        task: name of the task.
        schema: of the targets, as plain data.
        preprocess: for predictions.
        precision: of the forward pass.
        settings: other options that determined the weights.
        data: fingerprint of the training data, and images per split.
        metrics: per split, of the weights in this file.
        base: tag, sha256 and licence of the weights that training started from.
        versions: of zoo and the libraries.
        new_head: `HeadSpec` of the main head as plain data; empty for the default.
        unknown: keys of a newer zoo, which are preserved and ignored.
        format: version of this description.
    """

    backbone: str
    kwargs: Mapping[str, Any]
    heads: tuple[Head, ...]
    task: str
    schema: Mapping[str, Any]
    preprocess: Preprocess
    precision: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    new_head: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the card as canonical JSON."""
        plain = asdict(self)
        plain["heads"] = [to_dict(head) for head in self.heads]
        plain["preprocess"] = to_dict(self.preprocess)
        return canonical_json({**plain.pop("unknown"), **plain})

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs; empty for a task without classes."""
        classes = self.schema.get("classes", ()) if isinstance(self.schema, dict) else ()
        return tuple(classes)

    @property
    def memory_format(self) -> str:
        """Memory format that the training was given, or `auto`."""
        settings = self.settings if isinstance(self.settings, dict) else {}
        return str(settings.get("memory_format", "auto"))

    @property
    def base_license(self) -> str | None:
        """Licence of the weights that training started from; None where not stated."""
        license = self.base.get("license")
        return license if isinstance(license, str) else None

    def check(self, path: Path) -> None:
        """Validate the fields.

        Raises:
            WeightsError: a field is invalid; names it.
        """
        texts = [self.backbone, self.task, self.precision, *self.classes]
        size = max(self.preprocess.height, self.preprocess.width, self.preprocess.resize or 0)
        valid = {
            "text": all(isinstance(text, str) for text in texts),
            "builder arguments": isinstance(self.kwargs, dict),
            "base": isinstance(self.base, dict) and isinstance(self.data, dict),
            "settings": isinstance(self.settings, dict),
            "schema": isinstance(self.schema, dict),
            "head": isinstance(self.new_head, dict),
            "classes": len(set(self.classes)) == len(self.classes),
            "precision": self.precision in PRECISIONS,
            "memory format": self.memory_format in MEMORY_FORMATS,
            "preprocess": size <= MAX_SIZE and self.preprocess.channels <= MAX_CHANNELS,
        }
        for part, passed in valid.items():
            if not passed:
                raise WeightsError(f"{path} has a damaged description: its {part} cannot be used")

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse a card.

        Raises:
            ValueError, KeyError, TypeError: it is not a card.
        """
        plain = json.loads(text)
        plain["heads"] = tuple(Head(**head) for head in plain["heads"])
        plain["preprocess"] = Preprocess(**plain["preprocess"])
        known = {item.name for item in fields(cls)} - {"unknown"}
        unknown = {key: plain.pop(key) for key in plain.keys() - known}
        return cls(**plain, unknown=unknown)


def write_model(path: Path, tensors: Mapping[str, Tensor], card: ModelCard) -> str:
    """Write a model file atomically, and return its sha256.

    Raises:
        EnvironmentProblem: the system refuses; `path` is unchanged.
    """
    data = tensor_bytes(tensors, {KEY: card.to_json()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_model(path: Path) -> tuple[ModelCard, TensorFile]:
    """Read a model file.

    Raises:
        WeightsError: it is missing, damaged, or not a model file of a supported format.
    """
    file = read_tensors(path)
    return parse_card(path, file), file


def parse_card(path: Path, file: TensorFile) -> ModelCard:
    """Return the description in a model file.

    Args:
        path: of the file, for messages.
        file: its content.

    Raises:
        WeightsError: it is damaged, or not a model file of a supported format.
    """
    if KEY not in file.metadata:
        hint = "`zoo import --as NAME` makes a model file of it; to train from it use --weights"
        raise WeightsError(f"{path} contains tensors, but was not written by zoo", hint)
    try:
        version = json.loads(file.metadata[KEY]).get("format")
        if version != FORMAT:
            raise WeightsError(f"{path} has format {version}; this zoo reads format {FORMAT}")
        card = ModelCard.from_json(file.metadata[KEY])
    except WeightsError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ZooError) as error:
        raise WeightsError(f"{path} has a damaged description: {error}") from error
    card.check(path)
    return card
