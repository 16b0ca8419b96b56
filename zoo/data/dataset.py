"""One image of a split, read and prepared; what cannot be read comes back as data."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.augment import Draw
from zoo.data.decode import UnreadableImage
from zoo.data.images import check_channels
from zoo.data.split import Split
from zoo.data.transforms import at_least, prepare
from zoo.errors import DataError
from zoo.spec import Preprocess


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read.

    Args:
        path: which picture it is, for people; a file's path.
        reason: what is wrong with it, without its name.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """An image as the network sees it.

    Args:
        image: `[channels, height, width]`: uint8, or floats that are normalized already.
        label: a position in the classes.
        index: its position in the split.
        digest: sha256 of the content that was read; empty where it was not asked for.
    """

    image: Tensor
    label: int
    index: int
    digest: bytes = b""


def read_sample(
    split: Split,
    preprocess: Preprocess,
    index: int,
    draw: Draw | None = None,
    digest: bool = False,
) -> Sample | BadImage:
    """Read one image of a split.

    A function of its arguments alone, so that it matters neither which process calls it nor when.

    Args:
        split: where the image is.
        preprocess: how it is resized and cropped.
        index: its position in the split.
        draw: changes it at random; None leaves it as it is.
        digest: whether to digest its content too, the same bytes that are decoded.
    """
    found = b""
    try:
        enough = draw.at_least(preprocess) if draw else at_least(preprocess)
        if digest:
            content = split.content(index)
            found = sha256(content).digest()
            picture, label = split.sample(index, enough, content)
        else:
            with draw.while_reading(index) if draw else contextlib.nullcontext():
                picture, label = split.sample(index, enough)
        if isinstance(picture, Tensor):
            check_shape(picture, preprocess)
            return Sample(picture.float(), label, index)
        image = draw(picture, preprocess, index) if draw else prepare(picture, preprocess)
        check_channels(image, preprocess)
    except UnreadableImage as error:
        return BadImage(split.where(index), error.reason)
    except DataError as error:
        return BadImage(split.where(index), error.message)
    return Sample(image, label, index, found)


def check_shape(image: Tensor, preprocess: Preprocess) -> None:
    """Refuse a tensor that somebody else has prepared, and for something else.

    Raises:
        DataError: it is not what the network sees.
    """
    wanted = (preprocess.channels, preprocess.height, preprocess.width)
    if tuple(image.shape) != wanted:
        message = f"it is {list(image.shape)}, and the network sees {list(wanted)}"
        raise DataError(f"{message}; zoo.transform gives what it sees")


class SplitDataset(Dataset[Sample | BadImage]):
    """A split as torch's loader wants it."""

    def __init__(
        self, split: Split, preprocess: Preprocess, draw: Draw | None = None, digest: bool = False
    ) -> None:
        self.split = split
        self.preprocess = preprocess
        self.draw = draw
        self.digest = digest

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | BadImage:
        return read_sample(self.split, self.preprocess, index, self.draw, self.digest)
