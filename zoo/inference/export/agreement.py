"""Whether an exported network computes what the network does, on real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import zoo.data
from zoo.data.exportable import place
from zoo.data.transforms import prepare
from zoo.engine.runtime.network import Network
from zoo.errors import BrokenBackbone
from zoo.inference.export.exporter import Run, Source
from zoo.inference.predictor import Predictor
from zoo.models.freeze import inference_mode_of
from zoo.tasks.base import Outputs

# A wrong operation changes outputs by more than a hundredth of the largest. What remains is the
# rounding of pixels by one level of 255, and of sums in another order. If outputs differ by more,
# they may differ by what such a change of all pixels makes of them in the network itself.
TOLERANCE = 0.02
DRAWS = 4
IMAGES = 16
# The share of equal decisions that is needed where they are all that a network returns.
EQUAL = 0.98
# Every second image is enlarged, so that resizing is checked both up and down.
ENLARGED = 4


@dataclass(frozen=True)
class Agreement:
    """How far an exported network agrees with the network that it was made from.

    Args:
        images: number of images compared.
        decisions: share of equal decisions, for classification the top-1; None without any.
        difference: largest absolute difference of an output.
    """

    images: int
    decisions: float | None
    difference: float


def compare(run: Run, source: Source, images: Sequence[NDArray[np.uint8]]) -> Agreement:
    """Compare an exported network with the network, as `zoo predict` runs it.

    Args:
        run: the exported network.
        source: the network.
        images: each `[height, width, 3]`.

    Raises:
        BrokenBackbone: they differ by more than rounding does.
    """
    model, equal, decided, largest = source.model, 0, 0, 0.0
    expected: dict[str, Tensor] = {}
    for image in images:
        expected = predict(model, image)
        exported = {name: torch.from_numpy(np.array(v)) for name, v in run(image[None]).items()}
        if {k: v.shape for k, v in exported.items()} != {k: v.shape for k, v in expected.items()}:
            shapes = {name: list(value.shape) for name, value in exported.items()}
            message = f"the exported {model.backbone} returns {shapes}, other than in zoo"
            raise BrokenBackbone(message, "export it to another format")
        for name, values in expected.items():
            if values.is_floating_point():
                difference = float((exported[name] - values).abs().max())
                largest = max(largest, difference)
                limit = TOLERANCE * max(1.0, float(values.abs().max()))
                if difference > limit:
                    rounded = [predict(model, image, seed)[name] for seed in range(DRAWS)]
                    limit = max(float((each - values).abs().max()) for each in rounded)
                if not difference <= limit:
                    _refuse(model, f"{name} by {difference:.2g}")
        mine, theirs = (model.network.task.export_decisions(each) for each in (exported, expected))
        if mine is not None and theirs is not None:
            equal, decided = equal + int((mine == theirs).sum()), decided + theirs.numel()
    whole = all(not values.is_floating_point() for values in expected.values())
    if whole and decided and equal / decided < EQUAL:
        _refuse(model, f"{100 * equal / decided:.3g} % are equal")
    return Agreement(len(images), equal / decided if decided else None, largest)


def _refuse(model: Predictor, what: str) -> None:
    message = f"the exported {model.backbone} differs from the network: {what}"
    raise BrokenBackbone(message, "choose another format; nothing was written")


def predict(
    model: Predictor, image: NDArray[np.uint8], rounding: int | None = None
) -> dict[str, Tensor]:
    """Return the outputs of the task for an image, by the forward pass of `zoo predict`.

    Args:
        model: to run.
        image: `[height, width, 3]`.
        rounding: seed of a change of each pixel by -1, 0 or 1 of 255; None for no change.
    """
    network: Network = model.network
    pixels = prepare(Image.fromarray(image), network.preprocess)
    if rounding is not None:
        generator = torch.Generator().manual_seed(rounding)
        levels = torch.randint(-1, 2, pixels.shape, generator=generator)
        pixels = (pixels + levels).clamp(0, 255).to(torch.uint8)
    with inference_mode_of(network.module):
        main = network.forward(pixels[None]).main
        if model.card is not None and model.card.temperature is not None:
            main = main / model.card.temperature
        placement = place(image.shape[0], image.shape[1], network.preprocess)
        return network.task.export_outputs(Outputs(main), placement)


def sample_images(count: int = IMAGES) -> Iterator[NDArray[np.uint8]]:
    """Yield images of the embedded set, of several sizes and shapes."""
    files = sorted((Path(zoo.data.__path__[0]) / "clipart10" / "val").rglob("*.*"))
    for index, path in enumerate(files[:: max(len(files) // count, 1)][:count]):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        if index % 2:
            rgb = rgb.resize([ENLARGED * side for side in rgb.size], Image.Resampling.BICUBIC)
        yield np.array(rgb)


def as_facts(agreement: Agreement) -> Mapping[str, Any]:
    """Return an agreement with the keys of `zoo export --json`."""
    return {
        "images": agreement.images,
        "equal_decisions": agreement.decisions,
        "largest_difference": agreement.difference,
    }
