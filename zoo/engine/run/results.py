"""Store what the report of a training needs beside `run.json`, so that no image is read again."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from zoo.data.activation_overlay import blend_map
from zoo.data.batch import Batch
from zoo.data.decode import DecodedImage
from zoo.data.images import unchanged
from zoo.data.names import relative_path
from zoo.data.thumbnails import THUMBNAIL, encode, visible
from zoo.data.transforms import denormalize
from zoo.engine.features.activation_maps import CHUNK, activation_maps, find_map
from zoo.engine.run.observers import Observers
from zoo.engine.run.prepare import Prepared
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.state import TrainState
from zoo.errors import DataError, ZooError, one_line
from zoo.events import ResultsCollected
from zoo.files import write_bytes
from zoo.models.freeze import inference_mode_of
from zoo.spec import Preprocess
from zoo.tasks.base import Evidence, Metric

RESULTS = "results.json"
FORMAT = 1


class TrainingEvidence(Evidence):
    """The evidence of a training that has just ended.

    Args:
        prepared: the training.
        metrics: of each evaluated split, with the results of its samples.
        state: of the training.
        temperature: of the model file.
    """

    def __init__(
        self,
        prepared: Prepared,
        metrics: Mapping[str, Metric],
        state: TrainState,
        temperature: float | None,
    ) -> None:
        held_out = state.held_out
        if held_out is not None:
            self.held_out = held_out.rows, held_out.logits, held_out.labels
        self.temperature, self.similar, self.growth = temperature, state.similar, state.growth
        self.data, self.network = prepared.data, prepared.network
        self.preprocess = prepared.plan.preprocess
        self.samples: Mapping[str, Mapping[str, Tensor]] = {
            split: tensors
            for split, metric in metrics.items()
            if metric.samples is not None and (tensors := metric.samples.tensors())
        }

    def name(self, split: str, index: int) -> str:
        """Return the path of an image relative to the data, or its other name."""
        return relative_path(self.data.splits[split].where(index), self.data.root)

    def thumbnail(self, split: str, index: int) -> str | None:
        """Return a small copy of an image as base64 text; None if it is unreadable."""
        try:
            image, _, _ = self._small(split, index)
        except DataError:
            return None
        return base64.b64encode(encode(image)).decode("ascii")

    def _small(self, split: str, index: int) -> tuple[Image.Image, tuple[int, int], Preprocess]:
        """Read an image at a reduced size.

        Returns:
            The image, its width and height at full size, and how it becomes the network's input.

        Raises:
            DataError: it cannot be read.
        """
        image, _ = self.data.splits[split].sample(index, (THUMBNAIL, THUMBNAIL))
        if isinstance(image, Tensor):  # preprocessed by the user
            pixels = denormalize(image[None], self.preprocess)[0]
            shown = Image.fromarray(visible(pixels).permute(1, 2, 0).numpy())
            return shown, shown.size, unchanged(self.preprocess, (shown.height, shown.width))
        if isinstance(image, DecodedImage):
            return image.pixels, image.size, self.preprocess
        return image, image.size, self.preprocess

    def activation_maps(
        self, split: str, explained: Sequence[tuple[int, int]]
    ) -> list[str | None] | str:
        """Return small copies of images with their activation maps, or why there are none."""
        if self.network is None or not explained:
            return "there is no network" if self.network is None else []
        outputs = dict(explained)
        if self.data.splits[split].steps(1) is not None:
            return "a DataLoader has no order to read single images in"
        drawn: dict[int, str] = {}
        spatial = None
        try:
            for batch in self._read(split, list(outputs)):
                indices = batch.indices.tolist()
                numbers = torch.tensor([outputs[index] for index in indices])
                spatial = spatial or find_map(self.network, batch.inputs[:1], int(numbers[0]))
                maps = activation_maps(self.network, batch.inputs, numbers, spatial)
                for index, values in zip(indices, maps, strict=True):
                    image, size, preprocess = self._small(split, index)
                    image = blend_map(image, values, size, preprocess)
                    drawn[index] = base64.b64encode(encode(image)).decode("ascii")
        except ZooError as error:
            return error.message
        except RuntimeError as error:  # of torch: memory, or an operation without a gradient
            return one_line(error)
        return [drawn.get(index) for index, _ in explained]

    def _read(self, split: str, indices: Sequence[int]) -> Iterator[Batch]:
        """Yield samples as the network sees them, without those that are unreadable."""
        assert self.network is not None
        transform = self.network.task.transform(self.preprocess)
        reader = ImageReader(transform, self.network.device, CHUNK, bad_images="skip")
        return reader.read(self.data.splits[split], indices)

    def outputs(
        self, split: str, indices: Sequence[int]
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield position, pixels, main output and target of samples, on the CPU."""
        network = self.network
        if network is None or self.data.splits[split].steps(1) is not None:
            return
        forwards = network.forwards
        for batch in self._read(split, indices):
            with inference_mode_of(network.module):
                main = network.forward(batch.inputs).main.float().cpu()
            network.forwards = forwards  # those of the report are not counted
            inputs = batch.inputs
            if inputs.is_floating_point():
                inputs = denormalize(inputs, self.preprocess)
            rows = zip(batch.indices.tolist(), inputs, main, batch.targets.cpu(), strict=True)
            for index, pixels, output, target in rows:
                yield index, visible(pixels), output, target


def store_results(
    prepared: Prepared,
    folder: Path,
    metrics: Mapping[str, Metric],
    observers: Observers,
    state: TrainState,
    temperature: float | None,
) -> float:
    """Write `results.json` where a plugin reports; a failure is one notice.

    Args:
        prepared: the training.
        folder: the run folder.
        metrics: of each evaluated split.
        observers: whose plugins may add sections.
        state: of the training.
        temperature: of the model file.

    Returns:
        The seconds it took.
    """
    started = time.perf_counter()
    try:
        _write(folder, observers, TrainingEvidence(prepared, metrics, state, temperature), prepared)
    except Exception as error:  # a report is not worth a training
        prepared.progress.notice(f"{folder / RESULTS} is not written: {one_line(error)}")
    return time.perf_counter() - started


def _write(
    folder: Path, observers: Observers, evidence: TrainingEvidence, prepared: Prepared
) -> None:
    with torch.no_grad():
        data = prepared.task.report_data(evidence)
    event = ResultsCollected(prepared.plan.backbone, data, str(folder.absolute()))
    sections = observers.sections(event)
    plain = {"format": FORMAT, "task": data, "sections": [each.to_dict() for each in sections]}
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Escape the bytes of paths that are not valid text.
    write_bytes(folder / RESULTS, f"{text}\n".encode(errors="backslashreplace"))
