"""Where an image lies in a network's input, so that masks and boxes can follow it there."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.spec import Preprocess


@dataclass(frozen=True)
class Geometry:
    """How an image of one size is resized, cropped and padded.

    Args:
        size: width and height of the image, upright and in full.
        scaled: width and height that it is resized to.
        crop: left, upper, right and lower edge of what is cut out of that.
        offset: x and y of where that begins in the network's input; around it is padding.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    crop: tuple[int, int, int, int]
    offset: tuple[int, int]

    @property
    def cut(self) -> tuple[int, int]:
        """Width and height of what is cut out."""
        left, top, right, bottom = self.crop
        return right - left, bottom - top


def geometry_of(size: tuple[int, int], preprocess: Preprocess) -> Geometry:
    """Return the geometry of `prepare` for an image.

    Args:
        size: width and height of the image, upright and in full.
        preprocess: size, resize and crop.
    """
    height, width = _scaled_size(size, preprocess)
    wanted = (preprocess.width, preprocess.height)
    spans = zip((width, height), wanted, strict=True)
    (left, right), (top, bottom) = [_middle(*sides) for sides in spans]
    # As `center_crop` of torchvision pads what is too small.
    across, down = max(wanted[0] - (right - left), 0), max(wanted[1] - (bottom - top), 0)
    return Geometry(size, (width, height), (left, top, right, bottom), (across // 2, down // 2))


def _middle(scaled: int, wanted: int) -> tuple[int, int]:
    """Return from where to where a crop reaches, as torchvision rounds it."""
    first = max(round((scaled - wanted) / 2), 0)
    return first, min(first + wanted, scaled)


def target_size(preprocess: Preprocess) -> tuple[int, int]:
    """Return the height and width that an image is scaled to cover, fit into or fill."""
    size = preprocess.height, preprocess.width
    assert preprocess.resize is not None
    return size[0] * preprocess.resize // min(size), size[1] * preprocess.resize // min(size)


def _scaled_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Return the height and width that an image of a width and height has before the crop."""
    full_width, full_height = size
    target = target_size(preprocess)
    if preprocess.crop == "squash":
        return target
    ratios = [full_height / target[0], full_width / target[1]]
    if preprocess.crop == "border":
        ratio = max(ratios)
        return max(round(full_height / ratio), 1), max(round(full_width / ratio), 1)
    if preprocess.height == preprocess.width:
        # Rounded down, as torchvision does; timm does so too, but only where `size` is square.
        short, long = sorted(size)
        longer = target[0] * long // short
        return (longer, target[0]) if full_height > full_width else (target[0], longer)
    ratio = min(ratios)
    return round(full_height / ratio), round(full_width / ratio)
