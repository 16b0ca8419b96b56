"""Images with an activation map: grey where it is low, in colours where it is high."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.data.geometry import Geometry, geometry_of
from zoo.spec import Preprocess

# Colours at a third, two thirds and the whole of the largest value: red, orange, yellow, which
# differ in lightness too.
STOPS = (0.0, 1 / 3, 2 / 3, 1.0)
COLORS = ((70, 20, 90), (190, 45, 75), (245, 130, 30), (255, 230, 90))
# Share of the colour where the map is highest.
OPACITY = 0.72
# Lightness of the image under it, so that a bright place is seen on white; and outside of the
# crop, which the network does not see.
SEEN, UNSEEN = 0.8, 0.35


def blend_map(
    image: Image.Image, values: Tensor, size: tuple[int, int], preprocess: Preprocess
) -> Image.Image:
    """Return an image with the activation map of its part in the network's input.

    Args:
        image: upright, whole, of any size.
        values: `[height, width]`, from 0, over the network's input. Its largest value has the
            brightest colour; one without any gives a grey image.
        size: width and height of the image at full size.
        preprocess: from that to the network's input.
    """
    geometry = geometry_of(size, preprocess)
    box = _seen_box(image.size, geometry)
    pixels = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    blended = pixels * UNSEEN
    rows, columns = slice(box[1], box[3]), slice(box[0], box[2])
    whole = (preprocess.height, preprocess.width)
    strength = _place(values, whole, geometry, (box[3] - box[1], box[2] - box[0]))
    colors = np.stack(
        [np.interp(strength, STOPS, [color[channel] for color in COLORS]) for channel in range(3)],
        axis=-1,
    )
    alpha = (OPACITY * strength**0.75)[..., None]
    blended[rows, columns] = (1 - alpha) * SEEN * pixels[rows, columns] + alpha * colors
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _seen_box(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """Return left, upper, right and lower edge of what the network sees of an image of a size."""
    (width, height), (scaled_width, scaled_height) = size, geometry.scaled
    left, top, right, bottom = geometry.crop
    across, down = width / scaled_width, height / scaled_height
    x, y = min(round(left * across), width - 1), min(round(top * down), height - 1)
    return x, y, max(round(right * across), x + 1), max(round(bottom * down), y + 1)


def _place(
    values: Tensor, whole: tuple[int, int], geometry: Geometry, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a map over the part of the input that is not padding, its largest value 1.

    Args:
        values: over the whole input.
        whole: height and width of the input.
        geometry: of the image in it.
        size: height and width of the result.
    """
    left, top = geometry.offset
    cut_width, cut_height = geometry.cut
    fine = interpolate(values[None, None].float(), whole, mode="bilinear")
    seen = fine[:, :, top : top + cut_height, left : left + cut_width]
    fitted = interpolate(seen, size, mode="bilinear", antialias=True)[0, 0].clamp(min=0)
    most = float(fitted.max())
    placed: NDArray[np.float32] = (fitted / most if most > 0 else fitted).numpy()
    return placed
