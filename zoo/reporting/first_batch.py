"""The first batch of a training as the network sees it."""

from __future__ import annotations

import torch

from zoo.data.thumbnails import encode, visible
from zoo.events import FirstBatchRead
from zoo.sections import Gallery, Section, SmallImage
from zoo.tasks.reports import FIRST_BATCH

SHOWN = 16
SIZE = 128


def draw_batch(event: FirstBatchRead) -> Section:
    """Return a section with the first images of a batch."""
    from PIL import Image

    images, classes, labels = [], event.classes, event.labels
    for number, pixels in enumerate(event.images[:SHOWN]):
        channels = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        image = Image.fromarray(visible(channels).permute(1, 2, 0).contiguous().numpy())
        name = classes[labels[number]] if labels and classes else ""
        text = f"image {number + 1} of the first batch{f': {name}' if name else ''}"
        images.append(SmallImage(encode(image, SIZE), text, (name,) if name else ()))
    height, width = event.images.shape[1:3]
    caption = (
        f"{len(images)} of {len(event.images)} images of the first batch, {width} x {height} "
        "pixels, resized, cropped and augmented as in the training, before normalization."
    )
    return Section("First training batch", (Gallery(tuple(images), caption),), FIRST_BATCH)
