"""Joint transforms of images and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as vision

from zoo.data.augment import Draw, augmentation, draw_part, fill_of
from zoo.data.dataset import SampleTransform
from zoo.data.decode import DecodedImage
from zoo.data.transforms import prepare, prepare_mask, prepare_part
from zoo.seeding import seeded
from zoo.tasks.segmentation.schema import IGNORE_INDEX


class MaskTransform(SampleTransform):
    """Transforms an image and its mask to tensors."""

    def __call__(
        self, image: Image.Image | DecodedImage, target: Any, index: int, draw: Draw | None = None
    ) -> tuple[Tensor, Any]:
        """Transform an image and its mask together; return a target that is no mask unchanged.

        Returns:
            `[channels, height, width]` uint8, and `[height, width]` uint8.
        """
        if not isinstance(target, Image.Image):
            return super().__call__(image, target, index, draw)
        if draw is None or not draw.augment:
            return prepare(image, self.preprocess), self.mask(target)
        steps = dict(draw.augment.steps)
        with seeded(draw.seed, draw.epoch, index):
            if "crop" in steps:
                pixels, mask = self._crop(image, target, steps.pop("crop"))
            else:
                pixels, mask = prepare(image, self.preprocess), self.mask(target)
            both = tv_tensors.Image(pixels), tv_tensors.Mask(mask)
            color = fill_of(self.preprocess)
            fill = {tv_tensors.Image: color, tv_tensors.Mask: IGNORE_INDEX}
            for name, strength in steps.items():
                both = augmentation(name, strength, fill)(*both)
        return both[0].as_subclass(Tensor), both[1].as_subclass(Tensor)

    def mask(self, mask: Image.Image) -> Tensor:
        """Preprocess a mask with the geometry of its image, `[height, width]` uint8."""
        return prepare_mask(mask, self.preprocess, IGNORE_INDEX)

    def _crop(
        self, image: Image.Image | DecodedImage, mask: Image.Image, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Apply one random resized crop to an image and its mask."""
        full = image.pixels if isinstance(image, DecodedImage) else image
        part = draw_part(full, scale, self.preprocess)
        # Nearest-neighbour resizing samples pixel centres in Pillow, but corners in v2, which
        # shifts the mask by half an output pixel.
        size = self.preprocess.width, self.preprocess.height
        nearest = mask.resize(size, Image.Resampling.NEAREST, part)
        return prepare_part(full, part, self.preprocess), vision.pil_to_tensor(nearest)[0]

    def collate(self, targets: Sequence[Any]) -> Tensor:
        """Stack the masks of a batch, `[images, height, width]` uint8."""
        if not targets:
            shape = (0, self.preprocess.height, self.preprocess.width)
            return torch.zeros(shape, dtype=torch.uint8)
        return super().collate(targets)
