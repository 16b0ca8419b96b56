"""What a training sees of its images: splits, each a row of pictures with targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from zoo.data.decode import DecodedImage, decode, decode_reduced, read_bytes
from zoo.data.schema import Schema
from zoo.errors import DataError
from zoo.seeding import draw_by_name

if TYPE_CHECKING:
    from torch import Tensor

# What a person may call a split.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Split(ABC):
    """Images and their targets, in a fixed order, wherever they are.

    Attributes:
        name: `train`, `val`, `test`, or `all` where nothing is held out.
        targets: the target of each image, as its task has them: a position in the classes.
        thread_safe: whether several threads may read it at once.
    """

    name: str
    targets: Sequence[Any]
    # Whether several threads of one process may read it at once.
    thread_safe: ClassVar[bool] = False
    # Whether reading a sample may draw random numbers, as a user's own code may.
    draws: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def where(self, index: int) -> str:
        """Say which picture it is, for people."""

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """Read a picture as 8-bit RGB.

        Raises:
            UnreadableImage: it cannot be read.
        """

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage | Any, Any]:
        """Read a picture with its label.

        Args:
            index: which.
            at_least: the width and height that are enough, as for `decode_reduced`.
            content: what `content` gave, to be read instead of what lies there now.

        Returns:
            The picture, or a tensor of floats that somebody has prepared already; and its label.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return self.picture(index), self.targets[index]

    def content(self, index: int) -> bytes:
        """Return what a picture is made of: the bytes of its file, or its pixels and their shape.

        Raises:
            UnreadableImage: it cannot be read.
            DataError: a picture of this split may be another one each time.
        """
        raise DataError(f"{self.where(index)} may be another picture each time")

    def steps(self, batch_size: int) -> int | None:
        """Return how many batches come ready made in an epoch; None where zoo makes them."""
        return None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ready-made batches, inputs and targets, where `steps` counts any."""
        raise DataError(f"the {self.name} split gives samples and no batches")

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """How many pictures each class has."""
        counts = [0] * n_classes
        for label in self.targets:
            counts[label] += 1
        return tuple(counts)


@dataclass(frozen=True)
class FileSplit(Split):
    """Pictures in files.

    Args:
        name: of the split.
        root: the folder that the paths are relative to.
        paths: of each image, with `/` on every system.
        targets: of each image, a position in the classes.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    targets: tuple[Any, ...]
    thread_safe: ClassVar[bool] = True

    def path(self, index: int) -> Path:
        """Where an image lies."""
        return self.root / self.paths[index]

    def where(self, index: int) -> str:
        """Return the image's path."""
        return str(self.path(index))

    def picture(self, index: int) -> Image.Image:
        """Decode an image.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return decode(self.path(index))

    def content(self, index: int) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return read_bytes(self.path(index))

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage, Any]:
        """Decode an image, no larger than needed, with its label.

        Raises:
            UnreadableImage: it cannot be read.
        """
        source = self.path(index) if content is None else content
        return decode_reduced(source, at_least), self.targets[index]


@dataclass(frozen=True)
class ImageData:
    """Images, split for training.

    Args:
        name: how a person would call them.
        schema: what the targets are, the same for every split.
        splits: `train` and `val`, and `test` where there is one.
        fingerprint: sha256 over what tells these images from others; the same wherever they lie.
        notices: what was left out or looks odd, one line each.
        reason: how the split came about.
        deterministic: whether an image is the same each time that it is read.
        batch_size: of batches that come ready made; None where zoo makes them.
    """

    name: str
    schema: Schema
    splits: Mapping[str, Split]
    fingerprint: str
    notices: tuple[str, ...]
    reason: str
    deterministic: bool = True
    batch_size: int | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.schema.classes


def draw_held(names: Sequence[str], seed: int, fraction: float) -> set[int]:
    """Draw which pictures of one class are held out: a share, at least one and never all.

    Each picture's place in the draw depends on the seed and its own name alone, so that a picture
    more or less moves no other but the last drawn.

    Args:
        names: of the class's pictures.
        seed: of the draw.
        fraction: the share that is held out.

    Returns:
        The positions of those that were drawn.
    """
    count = min(max(round(len(names) * fraction), 1), len(names) - 1)
    return draw_by_name(names, seed, count)
