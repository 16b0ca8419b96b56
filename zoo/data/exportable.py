"""Preprocessing as tensor operations, for networks that are exported with it.

`zoo.data.transforms` defines the result. Here each pass of the resize is a product with a matrix of
the kernel's weights, which is computed from the size of the image; so an exported graph takes
images of any size, and needs no operator for antialiasing. Like Pillow, values are rounded and
clipped after each pass. Positions are integers, because a runtime may compute what is not in
bfloat16, as OpenVINO does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.data.geometry import target_size
from zoo.data.values import FULL, find_range
from zoo.errors import UsageError
from zoo.spec import Preprocess

# Of Keys (1981), as in Pillow.
BICUBIC = -0.5
# Of red, green and blue in grey, times 2**16, as in Pillow: ITU-R BT.601.
GREY = (19595, 38470, 7471)


class Axis(NamedTuple):
    """Where a side of an image lies in the same side of the network's input, in pixels.

    Args:
        full: of the image.
        scaled: that it is resized to.
        first: of the resized side, where the crop begins.
        cut: length of the crop.
        offset: of the crop in the input; around it is padding.
        length: `full` as an integer or a symbol, for shapes.
    """

    full: Tensor
    scaled: Tensor
    first: Tensor
    cut: Tensor
    offset: Tensor
    length: int


class Placement(NamedTuple):
    """Where images of one size lie in the network's input; `zoo.data.geometry` as tensors."""

    down: Axis
    across: Axis


class ExportablePreprocess(nn.Module):
    """Transforms images of one size to the input of a network.

    Args:
        preprocess: of the network.
        branching: choose the order of the passes by the size of the image, as `zoo.data.resize`
            does, by a condition in the graph; else the horizontal one is always first, which
            changes some pixels by a level of 255.

    Raises:
        UsageError: the network's input is neither RGB nor grey.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor

    def __init__(self, preprocess: Preprocess, branching: bool = True) -> None:
        super().__init__()
        if preprocess.channels not in (1, 3):
            message = f"the network takes images of {preprocess.channels} channels"
            raise UsageError(message, "only RGB and grey images are preprocessed in a graph")
        self.preprocess = preprocess
        self.branching = branching
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(-1, 1, 1))
        padding = (preprocess.mean * 3)[:3] if preprocess.crop == "border" else (0.0,) * 3
        colour = [float(round(255 * value)) for value in padding]
        self.register_buffer("fill", torch.tensor(colour).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Placement]:
        """Transform images.

        Args:
            images: `[images, height, width, 3]` uint8.

        Returns:
            `[images, channels, height, width]` float32, normalized, and where the images lie.
        """
        preprocess, (_, height, width, _) = self.preprocess, images.shape
        placement, kernel = place(height, width, preprocess), preprocess.interpolation
        down, rows = _weights(placement.down, preprocess.height, kernel)
        across, columns = _weights(placement.across, preprocess.width, kernel)
        pixels = self._stretch(images.permute(0, 3, 1, 2))
        order = _down_first(placement) if self.branching else None
        pixels = _resize(pixels, down, across, order)
        pixels = torch.where(rows[:, None] & columns, pixels, self.fill)
        if preprocess.channels == 1:
            red, green, blue = (pixels[:, i : i + 1].double() * GREY[i] for i in range(3))
            pixels = ((red + green + blue + 0x8000) / 0x10000).floor().float()
        return (pixels / 255 - self.mean) / self.std, placement

    def _stretch(self, pixels: Tensor) -> Tensor:
        """Scale bytes whose range the data use in part, as `zoo.data.values.scale` does."""
        if (bounds := find_range(self.preprocess.ranges, "uint8")) is None:
            return pixels
        low, high = bounds
        clipped = pixels.double().clamp(low, high)
        return ((clipped - low) * FULL["uint8"] / (high - low)).round().float()


def place(height: int, width: int, preprocess: Preprocess) -> Placement:
    """Return where images of a size lie in the input, as `geometry_of` does.

    Args:
        height: of the images, an integer or a symbol.
        width: of the images.
        preprocess: size, resize and crop.
    """
    full = [torch.full((), side, dtype=torch.int64) for side in (height, width)]
    scaled = _scaled(full[0], full[1], preprocess)
    wanted = preprocess.height, preprocess.width
    axes = []
    sides = zip(full, scaled, wanted, (height, width), strict=True)
    for side, resized, size, length in sides:
        half = _floor_divide(resized - size, 2)
        odd = resized - size - 2 * half
        # The even one of two equally near integers, as Python rounds.
        first = (half + odd * (half - 2 * _floor_divide(half, 2))).clamp(min=0)
        cut = torch.minimum(first + size, resized) - first
        offset = _floor_divide((size - cut).clamp(min=0), 2)
        axes.append(Axis(side, resized, first, cut, offset, length))
    return Placement(*axes)


def _scaled(height: Tensor, width: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """Return height and width before the crop."""
    target = target_size(preprocess)
    tall, wide = (torch.full_like(height, side) for side in target)
    if preprocess.crop == "squash":
        return tall, wide
    ratios = height.double() / target[0], width.double() / target[1]
    if preprocess.crop == "border":
        ratio = torch.maximum(*ratios)
        rounded = [(side / ratio).round().long().clamp(min=1) for side in (height, width)]
        return rounded[0], rounded[1]
    if preprocess.height == preprocess.width:
        short, long = torch.minimum(height, width), torch.maximum(height, width)
        longer, portrait = _floor_divide(target[0] * long, short), height > width
        return torch.where(portrait, longer, tall), torch.where(portrait, wide, longer)
    ratio = torch.minimum(*ratios)
    return (height / ratio).round().long(), (width / ratio).round().long()


def _floor_divide(value: Tensor, by: Tensor | int) -> Tensor:
    return torch.div(value, by, rounding_mode="floor")


def _weights(axis: Axis, size: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Return the matrix of a pass, and which rows of it are not padding.

    In float64 up to the weights, like Pillow.

    Args:
        axis: of the pass.
        size: of the input along it.
        interpolation: name of the kernel.

    Returns:
        `[size, length]` float32, zero for padding, and `[size]` bool.
    """
    position = torch.arange(size) - axis.offset
    inside = (position >= 0) & (position < axis.cut)
    # A pixel of the input is `scaled` wide and one of the image `full`; twice that for centers.
    center = ((2 * (position + axis.first) + 1) * axis.full)[:, None]
    source = torch.arange(axis.length)
    if interpolation == "nearest":
        weights = (source == _floor_divide(center, 2 * axis.scaled)).double()
    else:
        wider = 2 * torch.maximum(axis.full, axis.scaled)
        weights = _kernel(((2 * source + 1) * axis.scaled - center).double() / wider, interpolation)
        weights = weights / weights.sum(1, keepdim=True)
    return torch.where(inside[:, None], weights.float(), 0.0), inside


def _kernel(distance: Tensor, interpolation: str) -> Tensor:
    """Return the kernel at a distance in pixels of the smaller image."""
    x = distance.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    if interpolation == "bicubic":
        a = BICUBIC
        # Factored, so that few digits are enough near the zeros.
        near = (x - 1) * ((a + 2) * x * x - x - 1)
        far = a * (x - 1) * (x - 2) * (x - 2)
        return torch.where(x < 1, near, far) * (x < 2)
    angle = torch.where(x == 0, 1.0, x * torch.pi)
    wave = 3 * angle.sin() * (angle / 3).sin() / (angle * angle)
    return torch.where(x == 0, 1.0, wave) * (x < 3)


def _down_first(placement: Placement) -> Tensor:
    """Whether the first pass is the vertical one, as `zoo.data.resize` decides."""
    down, across = placement
    saved = down.full - down.scaled
    return (saved > 0) & (2 * (across.full - across.scaled) < saved)


def _resize(pixels: Tensor, down: Tensor, across: Tensor, down_first: Tensor | None) -> Tensor:
    """Multiply by both matrices, in that order which a condition in the graph chooses."""
    # Transposed here: both branches would do it, and torch 2.11 takes no two views of a tensor.
    given = pixels, down, across.T
    if down_first is None:
        return _horizontal_first(*given)
    if torch.compiler.is_exporting():
        result: Tensor = torch.cond(down_first, _vertical_first, _horizontal_first, given)
        return result
    return _vertical_first(*given) if bool(down_first) else _horizontal_first(*given)


def _vertical_first(pixels: Tensor, down: Tensor, columns: Tensor) -> Tensor:
    return _as_bytes(_as_bytes(down @ pixels.float()) @ columns)


def _horizontal_first(pixels: Tensor, down: Tensor, columns: Tensor) -> Tensor:
    return _as_bytes(down @ _as_bytes(pixels.float() @ columns))


def _as_bytes(values: Tensor) -> Tensor:
    whole = values.floor()  # half is added to no value of 8 bits, which bfloat16 would round
    return (whole + (values - whole >= 0.5)).clamp(0, 255)
