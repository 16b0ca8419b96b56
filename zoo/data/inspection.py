"""Read all images of a data set, and state what they are, without a network."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from zoo.data.decode import DecodedImage, UnreadableImage
from zoo.data.duplicates import Duplicates, find_duplicates
from zoo.data.split import ImageData, Split
from zoo.data.stored import read_format
from zoo.data.value_range import measure_ranges
from zoo.errors import DataError

# A JPEG is decoded at the smallest scale; its data are read in full at any.
SMALL = (1, 1)

Wrap = Callable[[Iterable["ImageFacts"], int, str], Iterator["ImageFacts"]]


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image.

    Args:
        format: of its file and its pixels, such as `JPEG RGB`; `array` without a file.
        size: width and height, upright; None where it cannot be read.
        digest: sha256 of its content; empty where images may differ between reads.
        bad: why it cannot be read; None where it can.
        incomplete: whether its file lacks its last bytes.
    """

    format: str = "array"
    size: tuple[int, int] | None = None
    digest: bytes = b""
    bad: str | None = None
    incomplete: bool = False


@dataclass(frozen=True)
class DataReport:
    """What is known of a data set, with its unreadable images and likely mistakes.

    Args:
        name: of the data set.
        task: that reads it.
        reason: origin of the splits.
        classes: names in the order of the outputs.
        images: number of images by split.
        counts: by split, number of images of each class; empty for a task without classes.
        sizes: smallest, median and largest width and height by number of pixels, of those read.
        formats: number of files by format.
        ranges: values that become black and white, for each type used in part by the data.
        duplicates: images with equal content.
        bad: reasons by path of images that cannot be read.
        incomplete: paths of JPEG files that lack their last bytes, and are read without them.
        notices: files that are ignored, and likely mistakes, one line each.
    """

    name: str
    task: str
    reason: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, tuple[int, int]]
    formats: Mapping[str, int]
    ranges: tuple[tuple[str, float, float], ...]
    duplicates: Duplicates
    bad: Mapping[str, str]
    incomplete: tuple[str, ...]
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data."""
        return {**asdict(self), "duplicates": self.duplicates.to_dict()}


def inspect_data(
    data: ImageData, task: str, counts: Mapping[str, Mapping[str, int]], wrap: Wrap
) -> DataReport:
    """Read every image of a data set.

    Args:
        data: as the task opened it.
        task: its name.
        counts: by split, number of images of each class.
        wrap: shows progress.
    """
    facts = {
        name: list(wrap(_inspect_split(split), len(split), f"reading {name}"))
        for name, split in data.splits.items()
    }
    every = [
        (data.splits[name], n, each) for name, of in facts.items() for n, each in enumerate(of)
    ]
    sizes = sorted((each.size for _, _, each in every if each.size), key=lambda s: (s[0] * s[1], s))
    places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
    digests = {name: [each.digest for each in of] for name, of in facts.items()}
    return DataReport(
        name=data.name,
        task=task,
        reason=data.reason,
        classes=data.classes,
        images={name: len(split) for name, split in data.splits.items()},
        counts=counts,
        sizes={name: sizes[place] for name, place in places.items()},
        formats=dict(Counter(each.format for _, _, each in every if not each.bad).most_common()),
        ranges=measure_ranges(data.splits.values()),
        duplicates=find_duplicates(data.splits, digests, data.classes),
        bad={split.where(n): each.bad for split, n, each in every if each.bad},
        incomplete=tuple(split.where(n) for split, n, each in every if each.incomplete),
        notices=data.notices,
    )


def _inspect_split(split: Split) -> Iterator[ImageFacts]:
    read = partial(inspect_image, split)
    if not split.thread_safe:
        yield from map(read, range(len(split)))
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        yield from pool.map(read, range(len(split)))


def inspect_image(split: Split, index: int) -> ImageFacts:
    """Read an image of a split with its target."""
    content, digest, kind = None, b"", "array"
    try:
        content = split.content(index)
        digest, kind = hashlib.sha256(content).digest(), read_format(content) or kind
    except UnreadableImage as error:
        return ImageFacts(bad=error.reason)
    except DataError:
        pass  # a Dataset, whose images may differ between reads
    try:
        image, _ = split.sample(index, SMALL, content)
    except UnreadableImage as error:
        other = "" if error.source in (split.where(index), "the image") else f"{error.source}: "
        return ImageFacts(kind, digest=digest, bad=other + error.reason)
    except DataError as error:
        return ImageFacts(kind, digest=digest, bad=error.message)
    if isinstance(image, Tensor):
        return ImageFacts("tensor", (image.shape[-1], image.shape[-2]), digest)
    assert isinstance(image, (Image.Image, DecodedImage))
    incomplete = isinstance(image, DecodedImage) and image.incomplete
    return ImageFacts(kind, image.size, digest, incomplete=incomplete)
