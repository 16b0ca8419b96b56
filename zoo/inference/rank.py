"""Which backbone suits these images: every candidate's features, judged by the probe itself.

A probe's own cross-validated accuracy is what estimates such as LogME (arXiv 2102.11005) stand in
for; with features that are computed once, it costs little more than they do.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.data.all_images import AllImages
from zoo.engine.probe.logistic import fit_probe
from zoo.errors import DataError, UsageError, ZooError
from zoo.inference.embed import Embedded, embedding
from zoo.inference.loading import load_features
from zoo.models.weights import availability
from zoo.registry.registry import Registry
from zoo.spec import IMAGE_CLASSIFICATION, Backbone
from zoo.terminal import Progress

NEIGHBOURS = 10
QUERIES_AT_ONCE = 1024
MOST_PARAMS = 30_000_000
MOST = 20


@dataclass(frozen=True)
class Rank:
    """How a backbone does on some images.

    Args:
        backbone: id.
        weights: tag.
        params: of the backbone; None where not known.
        accuracy: of a probe on its frozen features, on held-out folds; None where it failed.
        spread: standard deviation over the folds.
        knn: accuracy of each image's nearest neighbours, itself left out.
        seconds: what it took, features included.
        backbone_forwards: images that went through the backbone.
        error: why it could not be tried; None where it could.
    """

    backbone: str
    weights: str
    params: int | None
    accuracy: float | None = None
    spread: float | None = None
    knn: float | None = None
    seconds: float | None = None
    backbone_forwards: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it with the keys of `zoo rank --json`."""
        return asdict(self)


def candidates(
    registry: Registry, patterns: Sequence[str], max_params: int | None, limit: int
) -> list[Backbone]:
    """Return which backbones to try, those first whose weights are at hand.

    Without a pattern there are more than anybody tries: then, of each kind (the letters that a
    name begins with), the largest that is small enough, the kinds with most members first.

    Args:
        registry: where to look.
        patterns: of names or ids.
        max_params: the most parameters; None for 30 million without a pattern, else for any.
        limit: how many.

    Raises:
        UsageError: nothing matches that has published weights.
    """
    if max_params is None and not patterns:
        max_params = MOST_PARAMS
    found = [
        backbone
        for backbone in registry.find(patterns, task=IMAGE_CLASSIFICATION, pretrained=True)
        if not backbone.refuse
        and (max_params is None or (backbone.params is not None and backbone.params <= max_params))
    ]
    if not found:
        small = f" of at most {max_params:,} parameters" if max_params else ""
        message = f"no pretrained backbone{small} matches {' '.join(patterns) or 'at all'}"
        raise UsageError(message, "`zoo list --pretrained --sort params` shows them")
    if not patterns:
        found = _one_of_each(found)
    return sorted(found, key=lambda b: availability(b, b.weights[0]) == "download")[:limit]


def _one_of_each(found: list[Backbone]) -> list[Backbone]:
    kinds: dict[str, list[Backbone]] = {}
    for backbone in found:
        kinds.setdefault(re.match(r"[a-z]*", backbone.name.lower())[0], []).append(backbone)  # type: ignore[index]
    ordered = sorted(kinds.values(), key=len, reverse=True)
    return [max(kind, key=lambda backbone: backbone.params or 0) for kind in ordered]


def rank(
    chosen: Sequence[Backbone],
    every: AllImages,
    registry: Registry,
    progress: Progress,
    device: str = "auto",
    seed: int = 0,
    *,
    workers: int = 0,
    bad_images: str = "error",
) -> Iterator[Rank]:
    """Try backbones on labelled images, and yield how each does, in the order given.

    Features are kept, so a ranking that was stopped goes on where it was, and training the winner
    begins at its head.

    Args:
        chosen: which.
        every: the images.
        registry: of the backbones.
        progress: shows how it goes.
        device: where to compute.
        seed: of the folds.
        workers: processes that decode.
        bad_images: `error` or `skip`.

    Raises:
        DataError: the images have no classes.
    """
    if not every.classes:
        raise DataError(f"{every.name} has no classes", "give a folder of class folders")
    for backbone in chosen:
        began = time.perf_counter()
        tried = Rank(backbone.id, backbone.weights[0].tag, backbone.params)
        try:
            model = load_features(backbone.id, registry, device)
            limit = int(registry.config.defaults["cache_gib"] * (1 << 30))
            with embedding(
                model, every, progress, limit, workers=workers, bad_images=bad_images
            ) as embedded:
                accuracy, spread, knn = judge(embedded, seed)
        except ZooError as error:
            yield replace(tried, error=error.message)
        else:
            yield replace(
                tried,
                accuracy=accuracy,
                spread=spread,
                knn=knn,
                seconds=time.perf_counter() - began,
                backbone_forwards=embedded.forwards,
            )


def judge(embedded: Embedded, seed: int) -> tuple[float, float, float]:
    """Return how well features tell classes apart: a probe's accuracy, its spread, and k-NN's."""
    features = torch.cat(list(embedded.rows()))
    labels, classes = embedded.labels(), len(embedded.every.classes)
    probe = fit_probe(features, labels, classes, seed=seed)
    accuracy = probe.accuracy or (0.0,)
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    return statistics.fmean(accuracy), spread, neighbours_agree(features, labels, classes)


def neighbours_agree(features: Tensor, labels: Tensor, classes: int) -> float:
    """Return how often the ten nearest by cosine, each as heavy as it is near, say the class.

    Args:
        features: `[images, width]`.
        labels: `[images]`.
        classes: how many there are.

    Returns:
        A share in 0..1; of each image's own neighbours, itself left out.
    """
    centred = features - features.mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    count = min(NEIGHBOURS, len(unit) - 1)
    right = 0
    for first in range(0, len(unit), QUERIES_AT_ONCE):
        near = unit[first : first + QUERIES_AT_ONCE] @ unit.T
        own = torch.arange(len(near))
        near[own, first + own] = -2.0
        top = near.topk(count, dim=1)
        votes = torch.zeros(len(near), classes)
        votes.scatter_add_(1, labels[top.indices], (top.values + 1) / 2)
        right += int((votes.argmax(dim=1) == labels[first : first + len(near)]).sum())
    return right / len(unit)
