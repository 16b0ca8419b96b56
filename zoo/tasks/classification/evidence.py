"""What is stored of a finished training of a classifier, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.tasks.base import Evidence, Outputs

# The most probable classes that are recorded of each image.
TOP = 3
# Images of each kind that the report shows.
SHOWN = 24


def sample_results(outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
    """Return true class, the most probable ones, and the probability of each image of a batch.

    Args:
        outputs: logits `[images, classes]`.
        targets: labels `[images]`.
    """
    probabilities = outputs.main.float().softmax(dim=1)
    best = probabilities.topk(min(TOP, probabilities.shape[1]), dim=1)
    return {
        "true": targets.int(),
        "classes": best.indices.int(),
        "probabilities": best.values,
        "probability": probabilities.gather(1, targets[:, None])[:, 0],
    }


def report_data(evidence: Evidence) -> dict[str, Any]:
    """Return the results of the samples, the worst mistakes, and the class balance."""
    classes = evidence.data.schema.classes
    samples = {split: _sample_lists(evidence, split) for split in evidence.samples}
    return {
        "counts": {
            name: list(split.counts(len(classes)))
            for name, split in evidence.data.splits.items()
            if len(split.targets) == len(split)
        },
        "samples": samples,
        "mistakes": {
            split: _mistakes(evidence, split, values) for split, values in samples.items()
        },
    }


def _sample_lists(evidence: Evidence, split: str) -> dict[str, Any]:
    tensors = evidence.samples[split]
    return {
        "images": len(evidence.data.splits[split]),
        "name": [evidence.name(split, index) for index in tensors["index"].tolist()],
        "index": tensors["index"].tolist(),
        "true": tensors["true"].tolist(),
        "classes": tensors["classes"].tolist(),
        "probabilities": _rounded(tensors["probabilities"]),
        "probability": _rounded(tensors["probability"]),
    }


def _rounded(values: Tensor) -> Any:
    """Return probabilities to six digits."""
    return (values.double() * 1e6).round().div(1e6).tolist()


def _mistakes(evidence: Evidence, split: str, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the mistakes of a split with the least probability of the true class."""
    wrong = [row for row, best in enumerate(samples["classes"]) if best[0] != samples["true"][row]]
    wrong.sort(key=lambda row: (samples["probability"][row], samples["name"][row]))
    return [
        {"row": row, "image": evidence.thumbnail(split, samples["index"][row])}
        for row in wrong[:SHOWN]
    ]
