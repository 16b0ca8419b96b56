"""Splits: images and their targets in a fixed order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from zoo.data.decode import DecodedImage, decode, decode_reduced, read_bytes
from zoo.data.names import SPLITS, nfc
from zoo.data.schema import Schema
from zoo.data.stored import is_jpeg, read_values
from zoo.data.values import WHOLE, Ranges, Values
from zoo.errors import DataError, UsageError
from zoo.seeding import draw_by_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPLITS", "FileSplit", "ImageData", "Split", "check_fraction", "draw_held_out"]


class Split(ABC):
    """Images and their targets in a fixed order.

    Attributes:
        name: `train`, `val`, `test`, or `all` for data without splits.
        targets: the target of each image, such as a class index.
        groups: of each image, which are held out together; empty where there are none.
        thread_safe: whether several threads may read it at once.
    """

    name: str
    targets: Sequence[Any]
    groups: Sequence[str] = ()
    thread_safe: ClassVar[bool] = False
    # Whether reading a sample may draw random numbers, as a user's dataset may.
    draws: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def where(self, index: int) -> str:
        """Return the name of an image for messages, such as its path."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Read an image as 8-bit RGB.

        Raises:
            UnreadableImage: it cannot be read.
        """

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage | Any, Any]:
        """Read an image with its target.

        Args:
            index: position in the split.
            at_least: width and height that suffice, as for `decode_reduced`.
            content: bytes that `content` returned, decoded instead of reading the source again.

        Returns:
            The image, or a float tensor that is preprocessed already; and its target.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return self.image(index), self.targets[index]

    def content(self, index: int) -> bytes:
        """Return the bytes that determine an image: its file, or its shape and pixels.

        Raises:
            UnreadableImage: it cannot be read.
            DataError: images of this split may differ between reads.
        """
        raise DataError(f"{self.where(index)} may differ between reads")

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files of an image and its target; empty where they are in none."""
        return ()

    def values(self, index: int, skip: Collection[str] = ()) -> Values | None:
        """Return the values of an image as they are stored.

        Returns:
            None for skipped types, and for images that cannot be read.
        """
        return None

    def with_ranges(self, ranges: Ranges) -> Split:
        """Return the split with its images scaled by the ranges of a data set, by type."""
        return self

    def steps(self, batch_size: int) -> int | None:
        """Return the number of ready-made batches per epoch; None where zoo forms the batches."""
        return None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ready-made batches of inputs and targets, where `steps` returns a number."""
        raise DataError(f"the {self.name} split yields samples, not batches")

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """Return the number of images of each class."""
        counts = [0] * n_classes
        for label in self.targets:
            counts[label] += 1
        return tuple(counts)


@dataclass(frozen=True)
class FileSplit(Split):
    """Images in files.

    Args:
        name: of the split.
        root: the folder that the paths are relative to.
        paths: of each image, with `/` on every system.
        targets: of each image, such as a class index.
        groups: of each image, such as a patient; empty where there are none.
        ranges: of values by type, see `measure_ranges`.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    targets: tuple[Any, ...]
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    ranges: Ranges = field(default=(), kw_only=True)
    thread_safe: ClassVar[bool] = True

    def path(self, index: int) -> Path:
        """Return the path of an image."""
        return self.root / self.paths[index]

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the file of an image."""
        return (self.path(index),)

    def where(self, index: int) -> str:
        """Return the image's path."""
        return str(self.path(index))

    def image(self, index: int) -> Image.Image:
        """Decode an image.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return decode(self.path(index), self.ranges)

    def values(self, index: int, skip: Collection[str] = ()) -> Values | None:
        """Return the values of an image as its file stores them."""
        # Not `path`, which takes longer than all else here.
        if is_jpeg(self.paths[index]):
            return None if WHOLE.kind in skip else WHOLE
        return read_values(self.path(index), skip)

    def with_ranges(self, ranges: Ranges) -> FileSplit:
        """Return the split with its images scaled by these ranges."""
        return replace(self, ranges=ranges)

    def content(self, index: int) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return read_bytes(self.path(index))

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage, Any]:
        """Decode an image, no larger than needed, and return it with its target.

        Raises:
            UnreadableImage: it cannot be read.
        """
        source = self.path(index) if content is None else content
        return decode_reduced(source, at_least, self.ranges), self.targets[index]


@dataclass(frozen=True)
class ImageData:
    """Images, split for training.

    Args:
        name: shown in reports.
        schema: of the targets of every split.
        splits: `train`, and `val` and `test` where there are such.
        fingerprint: sha256 that identifies images and targets, whatever their location.
        notices: skipped files and likely mistakes, one line each.
        reason: origin of the splits.
        deterministic: whether reading an image again returns the same pixels.
        batch_size: of ready-made batches; None where zoo forms them.
        own_val: whether the source has a validation split of its own.
        root: the folder that paths in notices are relative to; None for data without files.
    """

    name: str
    schema: Schema
    splits: Mapping[str, Split]
    fingerprint: str
    notices: tuple[str, ...]
    reason: str
    deterministic: bool = True
    batch_size: int | None = None
    own_val: bool = False
    root: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.schema.classes


def check_fraction(fraction: float) -> None:
    """Check the share to hold out for validation; 0 holds out nothing.

    Raises:
        UsageError: it is not in the range.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"the validation share {fraction} is not between 0 and 1")


def draw_held_out(names: Sequence[str], seed: int, fraction: float) -> set[int]:
    """Draw the images of one class to hold out: a share, at least one and never all.

    The rank of an image depends on the seed and its own name alone, so adding or removing an image
    changes at most one other.

    Args:
        names: of the images of the class.
        seed: of the draw.
        fraction: share to hold out.

    Returns:
        Indices into `names`.
    """
    count = min(max(round(len(names) * fraction), 1), len(names) - 1)
    return draw_by_name([nfc(name) for name in names], seed, count)
