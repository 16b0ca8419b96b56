"""The model file: safetensors with a description of the network.

It contains the full state dict under the library's own names, and in its metadata one key, `zoo`,
with canonical JSON. Equal trainings write equal bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError, ZooError, unknown_format
from zoo.files import canonical_json, parse_json, write_bytes
from zoo.options.table import MEMORY_FORMATS
from zoo.records import to_dict
from zoo.spec import Head, Preprocess
from zoo.tensorfile import TensorFile, read_tensors, tensor_bytes

# For converters of published weights, which plugins have.
from zoo.tensorfile import read_checkpoint as read_checkpoint
from zoo.tensorfile import read_file as read_file

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEY = "zoo"
# The name of a run's model file.
MODEL = "model.safetensors"
# The folder of a run's checkpoints.
CHECKPOINTS = "checkpoints"
# The setting that states how far the training was, of a model file written while it goes on.
UNFINISHED = "unfinished"
PRECISIONS = ("fp32", "bf16")
MAX_SIZE = 1 << 14
MAX_CHANNELS = 1 << 10


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
        temperature: that logits are divided by for probabilities; None for 1.
        features: engine, version and precision of the features that the head was fitted on; empty
            where it was trained on images.
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
    temperature: float | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the card as canonical JSON."""
        plain = asdict(self)
        plain["heads"] = [to_dict(head) for head in self.heads]
        plain["preprocess"] = to_dict(self.preprocess)
        if self.temperature is None:
            del plain["temperature"]
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
    def engine(self) -> str:
        """Engine of the features that the head was fitted on."""
        features = self.features if isinstance(self.features, dict) else {}
        return str(features.get("engine", "torch"))

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
            "features": isinstance(self.features, dict),
            "classes": len(set(self.classes)) == len(self.classes),
            "precision": self.precision in PRECISIONS,
            "temperature": self.temperature is None
            or (isinstance(self.temperature, float) and 0 < self.temperature < math.inf),
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
        plain = parse_json(text)
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
    check_present(path)
    file = read_tensors(path)
    return parse_card(path, file), file


def check_present(path: Path) -> None:
    """Check that a run has a model file.

    Raises:
        WeightsError: its training has not finished an epoch.
    """
    if not path.exists() and (path.parent / CHECKPOINTS).is_dir():
        message = f"{path.parent} has no model yet: its training has not finished an epoch"
        raise WeightsError(message, f"`zoo finetune --resume {quote(str(path.parent))}` resumes it")


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
    return checked_card(path, file.metadata[KEY])


def checked_card(path: Path, text: str) -> ModelCard:
    """Parse and check the description in a model file.

    Raises:
        WeightsError: it is damaged, or of a format that this zoo does not read.
    """
    try:
        plain = parse_json(text)
        if "format" not in plain and "paths" in plain:
            message = f"{path} contains features of images, and no network"
            raise WeightsError(message, "give a model, such as the folder of a training")
        version = plain["format"]
        if version != FORMAT:
            raise unknown_format(path, version, FORMAT)
        card = ModelCard.from_json(text)
        card.check(path)
    except WeightsError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ZooError) as error:
        raise WeightsError(f"{path} has a damaged description: {error}") from error
    return card
