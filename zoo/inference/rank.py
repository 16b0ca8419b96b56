"""Rank backbones on labelled images by the cross-validated accuracy of a linear probe.

Estimates such as LogME (arXiv 2102.11005) approximate this accuracy; on cached features, the probe
costs little more than they do.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.data.all_images import AllImages
from zoo.data.bad_images import describe_bad
from zoo.engine.probe.logistic import fit_probe
from zoo.errors import DataError, UsageError, ZooError
from zoo.inference.embed import Embedded, embedding
from zoo.inference.loading import load_features
from zoo.models.weight_sources import local_weights
from zoo.options.arguments import check_arguments
from zoo.options.columns import Columns
from zoo.registry.registry import Registry
from zoo.spec import IMAGE_CLASSIFICATION, Backbone
from zoo.tasks.base import load_task
from zoo.terminal import Progress, percent

NEIGHBOURS = 10
QUERIES_PER_BLOCK = 1024
DEFAULT_MAX_PARAMS = 30_000_000


@dataclass(frozen=True)
class Rank:
    """Result of a backbone on some images.

    Args:
        backbone: id.
        weights: tag.
        params: number of parameters; None if not known.
        accuracy: of a probe on its frozen features, cross-validated; None if it failed.
        spread: standard deviation over the folds.
        knn: leave-one-out accuracy of the nearest neighbours.
        seconds: of feature computation and probe.
        backbone_forwards: number of forward passes of the backbone, in images.
        engine: that computed its features; None if it failed.
        error: why it failed; None if it did not.
    """

    backbone: str
    weights: str
    params: int | None
    accuracy: float | None = None
    spread: float | None = None
    knn: float | None = None
    seconds: float | None = None
    backbone_forwards: int = 0
    engine: str | None = None
    error: ZooError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `zoo rank --json`."""
        return {**vars(self), "error": self.error and self.error.message}


def candidates(
    registry: Registry,
    patterns: Sequence[str],
    task: str,
    max_params: int | None,
    limit: int,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Backbone]:
    """Return the backbones to rank, those with local weights first.

    Without a pattern, return the largest backbone of each architecture, the leading letters of a
    name, in the order of the number of variants.

    Args:
        registry: of backbones.
        patterns: of names or ids.
        task: name of the task.
        max_params: largest number of parameters; None for 30 million without a pattern, else for
            no limit.
        limit: largest number of backbones.
        notify: called with one line if backbones of unknown size are left out.

    Raises:
        UsageError: no backbone with published weights matches.
    """
    if max_params is None and not patterns:
        max_params = DEFAULT_MAX_PARAMS
    pretrained = registry.find(patterns, task=task, pretrained=True)
    matches = [backbone for backbone in pretrained if not backbone.refuse]
    if max_params is not None:
        if unknown := sum(backbone.params is None for backbone in matches):
            notify(f"left out, of unknown size: {unknown:,}; name them, without --max-params")
        matches = [b for b in matches if b.params is not None and b.params <= max_params]
    if not matches:
        size = f" of at most {max_params:,} parameters" if max_params else ""
        suffix = f" matches {' '.join(patterns)}" if patterns else ""
        message = f"no pretrained backbone{size} for {task}{suffix}"
        raise UsageError(message, "`zoo list --pretrained --sort params` lists them")
    if not patterns:
        matches = _largest_by_architecture(matches)
    return sorted(matches, key=lambda backbone: local_weights(backbone) is None)[:limit]


def _largest_by_architecture(backbones: list[Backbone]) -> list[Backbone]:
    groups: dict[str, list[Backbone]] = {}
    for backbone in backbones:
        groups.setdefault(re.match(r"[a-z]*", backbone.name.lower())[0], []).append(backbone)  # type: ignore[index]
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [max(group, key=lambda backbone: backbone.params or 0) for group in ordered]


def rank(
    backbones: Sequence[Backbone],
    images: AllImages,
    registry: Registry,
    progress: Progress,
    device: str = "auto",
    seed: int = 0,
    *,
    workers: int | None = None,
    bad_images: str = "error",
    engine: str = "auto",
) -> Iterator[Rank]:
    """Evaluate backbones on labelled images, and yield the result of each, in the given order.

    Features are cached: an interrupted ranking resumes, and training the best backbone computes
    only its head.

    Args:
        backbones: to rank.
        images: with classes.
        registry: of the backbones.
        progress: display of progress and notices.
        device: as torch names it, or `auto`.
        seed: of the folds.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        engine: of features, `auto` or the name of one.

    Raises:
        DataError: the images have no classes, or one cannot be read and `bad_images` is `error`.
    """
    check_classes(images)
    skipped: Mapping[str, str] = {}
    for backbone in backbones:
        started = time.perf_counter()
        result = Rank(backbone.id, backbone.weights[0].tag, backbone.params)
        try:
            model = load_features(backbone.id, registry, device)
            limit = int(registry.config.defaults["cache_gib"] * (1 << 30))
            with embedding(
                model,
                images,
                progress,
                limit,
                workers=workers,
                bad_images=bad_images,
                engine=engine,
            ) as embedded:
                if embedded.bad and not skipped:  # the same ones of each backbone
                    skipped = embedded.bad
                    for line in describe_bad(skipped):
                        progress.notice(f"skipped: {line}")
                accuracy, spread, knn = score(embedded, seed)
        except DataError:
            raise  # no candidate can read the images
        except ZooError as error:
            yield replace(result, error=error)
        else:
            yield replace(
                result,
                accuracy=accuracy,
                spread=spread,
                knn=knn,
                seconds=time.perf_counter() - started,
                backbone_forwards=embedded.forwards,
                engine=embedded.engine,
            )


def rank_all(
    patterns: Sequence[str],
    data: Any,
    registry: Registry,
    progress: Progress,
    *,
    classes: int | None = None,
    columns: Columns | None = None,
    group: str | None = None,
    group_by: str | None = None,
    max_params: int | None = None,
    limit: int = 20,
    workers: int | None = None,
    bad_images: str = "error",
    device: str = "auto",
    seed: int = 0,
    engine: str = "auto",
) -> list[Rank]:
    """Open a source of labelled images, rank candidates on it, and return them, the best first.

    Args:
        patterns: of names or ids, as for `candidates`.
        data: the source, as for a training.
        registry: of backbones.
        progress: display of progress and notices.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table.
        group: column of a table whose groups stay in one fold.
        group_by: expression that finds the group in a path.
        max_params: as for `candidates`.
        limit: as for `candidates`.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        device: as torch names it, or `auto`.
        seed: of the folds.
        engine: of features, `auto` or the name of one.

    Raises:
        UsageError: no backbone with published weights matches.
        DataError: the data cannot be used, or have no classes.
    """
    check_arguments(data=data)
    task = load_task(registry.task(IMAGE_CLASSIFICATION))
    images = task.open_all(data, classes=classes, columns=columns, group=group, group_by=group_by)
    check_classes(images)
    for notice in images.notices:
        progress.notice(f"{images.name}: {notice}")
    progress.notice(f"{images.name}: chance is {percent(images.largest_share)}")
    backbones = candidates(
        registry, patterns, IMAGE_CLASSIFICATION, max_params, limit, progress.notice
    )
    ranks: list[Rank] = []
    for each in rank(
        backbones,
        images,
        registry,
        progress,
        device,
        seed,
        workers=workers,
        bad_images=bad_images,
        engine=engine,
    ):
        ranks.append(each)
        result = f"failed: {each.error.message}" if each.error else percent(each.accuracy)
        progress.notice(f"{len(ranks)}/{len(backbones)} {each.backbone}: {result}")
    return sorted(ranks, key=lambda each: (each.accuracy is None, -(each.accuracy or 0)))


def check_classes(images: AllImages) -> None:
    """Check that images have classes.

    Raises:
        DataError: they have none.
    """
    if not images.classes:
        raise DataError(f"{images.name} has no classes", "give a folder of class folders")


def score(embedded: Embedded, seed: int) -> tuple[float, float, float]:
    """Return accuracy and spread of a probe on features, and the accuracy of k-NN.

    Raises:
        DataError: there are too few images for cross-validation.
    """
    features = torch.cat(list(embedded.rows()))
    labels, classes = embedded.labels(), len(embedded.images.classes)
    groups = embedded.groups()
    probe = fit_probe(features, labels, classes, seed=seed, groups=groups)
    if not probe.accuracy:
        hint = "give at least two images, or groups, of a class"
        raise DataError(f"{embedded.images.name} cannot be ranked on: {probe.reason}", hint)
    spread = statistics.stdev(probe.accuracy)
    return statistics.fmean(probe.accuracy), spread, knn_accuracy(features, labels, classes, groups)


def knn_accuracy(
    features: Tensor, labels: Tensor, classes: int, groups: Tensor | None = None
) -> float:
    """Return the leave-one-out accuracy, in 0..1, of the ten nearest neighbours.

    Similarity is the cosine of centred features, and weights the votes.

    Args:
        features: `[images, width]`.
        labels: `[images]`, int64.
        classes: number of classes.
        groups: `[images]`, integers; images of one group are no neighbours. None without.
    """
    centred = features - features.mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    count = min(NEIGHBOURS, len(unit) - 1)
    correct = 0
    for first in range(0, len(unit), QUERIES_PER_BLOCK):
        similarity = unit[first : first + QUERIES_PER_BLOCK] @ unit.T
        rows = torch.arange(len(similarity))
        similarity[rows, first + rows] = -2.0  # excludes the query itself
        if groups is not None:
            same = groups[first : first + len(rows), None] == groups
            similarity.masked_fill_(same, -1.0)  # without a vote
        top = similarity.topk(count, dim=1)
        votes = torch.zeros(len(rows), classes)
        votes.scatter_add_(1, labels[top.indices], (top.values + 1) / 2)
        most, voted = votes.max(dim=1)
        # An image without neighbours gets no vote, and is not predicted.
        correct += int(((voted == labels[first : first + len(rows)]) & (most > 0)).sum())
    return correct / len(unit)
