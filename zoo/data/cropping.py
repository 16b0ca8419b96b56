"""How much of the images of a split a crop cuts away."""

from __future__ import annotations

from contextlib import suppress
from statistics import median

from zoo.data.decode import UnreadableImage, read_size
from zoo.data.geometry import geometry_of
from zoo.data.split import FileSplit, Split
from zoo.spec import Preprocess

# Headers are read of this many images, evenly spaced.
SAMPLED = 100
# The share of most images that a crop may cut away without a notice.
MUCH = 0.5


def share_cut_away(size: tuple[int, int], preprocess: Preprocess) -> float:
    """Return the share of an image's area that the crop cuts away, in 0..1.

    Args:
        size: width and height of the image.
        preprocess: size, resize and crop.
    """
    geometry = geometry_of(size, preprocess)
    (width, height), (cut_width, cut_height) = geometry.scaled, geometry.cut
    return 1 - cut_width * cut_height / (width * height)


def median_cut_away(split: Split, preprocess: Preprocess) -> float | None:
    """Return the median share that the crop cuts away from some images of a split.

    Returns:
        None without files; only of a file the size is known without reading its pixels.
    """
    if not isinstance(split, FileSplit):
        return None
    shares = []
    for index in range(0, len(split), -(-len(split) // SAMPLED) or 1):
        with suppress(UnreadableImage):  # reported when it is read
            shares.append(share_cut_away(read_size(split.path(index)), preprocess))
    return median(shares) if shares else None


def crop_notice(split: Split, preprocess: Preprocess) -> str | None:
    """Return the share of most images that the center crop cuts away, if it is much, as text."""
    share = median_cut_away(split, preprocess) if preprocess.crop == "center" else None
    if share is None or share <= MUCH:
        return None
    effect = f"the center crop cuts away {100 * share:.0f} % of the area of most images"
    return f"{effect}; --crop squash or --crop border uses whole images"
