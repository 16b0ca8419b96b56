"""Store what the report of a training needs beside `run.json`, so that no image is read again."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from zoo.data.decode import DecodedImage
from zoo.data.names import relative_path
from zoo.data.transforms import denormalize
from zoo.engine.run.observers import Observers
from zoo.engine.run.prepare import Prepared
from zoo.engine.training.state import TrainState
from zoo.errors import DataError, one_line
from zoo.events import ResultsCollected
from zoo.files import write_bytes
from zoo.tasks.base import Evidence, Metric

RESULTS = "results.json"
FORMAT = 1
# Longer side of an image in the report, and the quality of its JPEG file: about 5 kB each.
THUMBNAIL, QUALITY = 168, 80


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
        self.data = prepared.data
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
            image, _ = self.data.splits[split].sample(index, (THUMBNAIL, THUMBNAIL))
        except DataError:
            return None
        if isinstance(image, Tensor):  # preprocessed by the user
            pixels = denormalize(image[None], self.preprocess)[0]
            image = Image.fromarray(visible(pixels).permute(1, 2, 0).numpy())
        elif isinstance(image, DecodedImage):
            image = image.pixels
        return base64.b64encode(encode(image)).decode("ascii")


def visible(pixels: Tensor) -> Tensor:
    """Return pixels `[channels, height, width]` uint8 as RGB, one channel as grey."""
    return (pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)).cpu()


def encode(image: Image.Image, size: int = THUMBNAIL) -> bytes:
    """Return an image, no larger than `size` pixels, as a JPEG file."""
    small = image.convert("RGB")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


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
