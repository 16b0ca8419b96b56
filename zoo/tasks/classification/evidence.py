"""What is stored of a finished training of a classifier, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.tasks.base import Evidence, Outputs
from zoo.tasks.classification.label_errors import probable_errors
from zoo.tasks.classification.outputs import most_probable
from zoo.tasks.classification.statistics import (
    answered_above,
    expected_calibration_error,
    reliability_bins,
)

# The most probable classes that are recorded of each image.
TOP = 3
# Images of each kind that the report shows.
SHOWN = 24
# Images with an activation map: this number of right ones, and of wrong ones.
EXPLAINED = 6


def sample_results(outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
    """Return true class, the most probable ones, and the probability of each image of a batch.

    Args:
        outputs: logits `[images, classes]`.
        targets: labels `[images]`.
    """
    probabilities = outputs.main.float().softmax(dim=1)
    best = most_probable(outputs.main.float(), TOP)
    return {
        "true": targets.int(),
        "classes": best.int(),
        "probabilities": probabilities.gather(1, best),
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
        "similar": {split: _similar(evidence, split) for split in evidence.similar},
        "growth": [[images, list(values)] for images, values in evidence.growth],
        **_held_out(evidence),
        "mistakes": {
            split: _mistakes(evidence, split, values) for split, values in samples.items()
        },
        "activation": _activation(evidence, samples),
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
    return [
        {"row": row, "image": evidence.thumbnail(split, samples["index"][row])}
        for row in _worst(samples)[:SHOWN]
    ]


def _worst(samples: Mapping[str, Any]) -> list[int]:
    """Return the rows of mistakes, the least probability of the true class first."""
    wrong = [row for row, best in enumerate(samples["classes"]) if best[0] != samples["true"][row]]
    return sorted(wrong, key=lambda row: (samples["probability"][row], samples["name"][row]))


def _activation(evidence: Evidence, samples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return images with the activation map of their predicted class, right and wrong ones.

    The wrong ones are the worst; the right ones are evenly spread over the split.
    """
    split = next((name for name in ("val", "test") if name in samples), None)
    if split is None:
        return {}
    values, wrong = samples[split], _worst(samples[split])
    right = [row for row in range(len(values["true"])) if row not in set(wrong)]
    spread = right[:: max(len(right) // EXPLAINED, 1)][:EXPLAINED]
    rows = [*wrong[:EXPLAINED], *spread]
    explained = [(values["index"][row], values["classes"][row][0]) for row in rows]
    images = evidence.activation_maps(split, explained)
    if isinstance(images, str):
        return {"split": split, "reason": images, "shown": []}
    shown = [{"row": row, "image": image} for row, image in zip(rows, images, strict=True)]
    return {"split": split, "shown": shown}


def _held_out(evidence: Evidence) -> dict[str, Any]:
    """Return probable label errors, and the calibration of held-out predictions."""
    if evidence.held_out is None:
        return {}
    positions, logits, labels = evidence.held_out
    probabilities = logits.double().softmax(dim=1)
    errors = probable_errors(probabilities, labels)
    shown = [
        {
            "name": evidence.name("train", int(positions[row])),
            "label": int(labels[row]),
            "other": other,
            "probabilities": _rounded(probabilities[row, [int(labels[row]), other]]),
            "image": evidence.thumbnail("train", int(positions[row])),
        }
        for row, other in errors[:SHOWN]
    ]
    calibration = {"1": _calibration(probabilities, labels)}
    scaled = probabilities
    if evidence.temperature is not None:
        scaled = (logits.double() / evidence.temperature).softmax(dim=1)
        calibration[str(evidence.temperature)] = _calibration(scaled, labels)
    best = scaled.max(dim=1)
    return {
        "answered": answered_above(best.values.tolist(), (best.indices == labels).tolist()),
        "label_errors": {"images": len(labels), "found": len(errors), "shown": shown},
        "held_out": calibration,
    }


def _calibration(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return ECE and NLL of probabilities `[images, classes]`."""
    confidences, predicted = probabilities.max(dim=1)
    bins = reliability_bins(confidences.tolist(), (predicted == labels).tolist())
    likely = probabilities.gather(1, labels[:, None]).clamp(min=1e-12)
    return {"ece": expected_calibration_error(bins), "nll": -float(likely.log().mean())}


def _similar(evidence: Evidence, split: str) -> list[dict[str, Any]]:
    """Return pairs of images of a split and of the training split that look alike."""
    return [
        {
            "names": [evidence.name(split, index), evidence.name("train", other)],
            "images": [evidence.thumbnail(split, index), evidence.thumbnail("train", other)],
            "cosine": round(cosine, 4),
        }
        for index, other, cosine in evidence.similar[split]
    ]
