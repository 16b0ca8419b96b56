"""One image of a split, read and prepared; what cannot be read comes back as data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.decode import UnreadableImage
from zoo.data.split import Split
from zoo.data.transforms import prepare
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
    """An image as the network sees it, but for normalization.

    Args:
        image: `[3, height, width]`, uint8.
        label: a position in the classes.
        index: its position in the split.
    """

    image: Tensor
    label: int
    index: int


def read_sample(split: Split, preprocess: Preprocess, index: int) -> Sample | BadImage:
    """Read one image of a split.

    A function of its arguments alone, so that it matters neither which process calls it nor
    when. What draws random numbers takes its seed and epoch as further arguments.
    """
    try:
        image = prepare(split.picture(index), preprocess)
    except UnreadableImage as error:
        return BadImage(split.where(index), error.reason)
    except DataError as error:
        return BadImage(split.where(index), error.message)
    return Sample(image, split.labels[index], index)


class SplitDataset(Dataset[Sample | BadImage]):
    """A split as torch's loader wants it."""

    def __init__(self, split: Split, preprocess: Preprocess) -> None:
        self.split = split
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | BadImage:
        return read_sample(self.split, self.preprocess, index)
