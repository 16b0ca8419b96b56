"""Fit a head to files of features: by the solver where they fit in memory, else in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from zoo.engine.features.files import FeatureFiles
from zoo.engine.probe.logistic import Probe, fit_probe
from zoo.engine.probe.ridge import FeatureSums, fit_scale, merge_sums, one_thread, solve_ridge
from zoo.engine.probe.search import HeldOut

# Up to this size the training rows are in memory, and the solver reads them as often as it needs.
IN_MEMORY = 4 << 30
# Rows on which the scale of the scores is fitted, and scores of these rows over all classes.
SCALE_ROWS, SCALE_VALUES = 20_000, 20_000_000
TRAIN = "train"


def recipe_for(files: FeatureFiles) -> tuple[str, str]:
    """Return the recipe for features, and the reason."""
    size = len(files.splits[TRAIN]) * files.width * 4
    text = f"the training features take {size / 2**30:.1f} GiB"
    if size <= IN_MEMORY:
        return "probe", f"{text}, which fit in memory"
    return "ridge", f"{text}, more than {IN_MEMORY >> 30} GiB"


def solve_files(files: FeatureFiles, seed: int, device: torch.device) -> Probe:
    """Fit a head to its optimum, with all training rows in memory.

    Args:
        files: of the features.
        seed: of the folds.
        device: to compute on.
    """
    rows = list(itertools.chain.from_iterable(files.blocks(p, TRAIN) for p in files.paths))
    features = torch.empty(len(files.splits[TRAIN]), files.width)
    labels = torch.cat([part for _, part in rows])
    first = 0
    while rows:  # each block is freed once it is copied
        block, _ = rows.pop(0)
        features[first : first + len(block)] = block
        first += len(block)
    return fit_probe(features, labels, len(files.classes), seed=seed, device=device)


def sum_files(files: FeatureFiles, workers: int) -> FeatureSums:
    """Sum the training rows of files in threads, merged in the files' order.

    Args:
        files: of the features.
        workers: number of threads; the sums do not depend on it.
    """

    def summed(path: Path) -> FeatureSums:
        return FeatureSums.of(files.blocks(path, TRAIN), len(files.classes), files.width)

    return merge_sums(files.paths, summed, workers)


def ridge_files(files: FeatureFiles, workers: int) -> Probe:
    """Fit a head by ridge regression, in one pass and with memory independent of the rows.

    The logits are the scores of the regression, which estimate probabilities, times the factor with
    the least log loss on leave-one-out scores of some rows of each file. A class without rows gets
    a bias that never predicts it.

    Args:
        files: of the features.
        workers: number of threads; the head does not depend on it.
    """
    sums = sum_files(files, workers)
    head = solve_ridge(sums)
    with one_thread():
        features, labels = _sample(files)
        scores = head.held_out_scores(features, labels)
        scale = fit_scale(scores, labels)
    bias = head.bias * scale
    bias[sums.counts == 0] = torch.finfo(torch.float32).min
    accuracy = float((scores.argmax(1) == labels).double().mean())
    rows = torch.arange(len(labels))
    return Probe(
        weight=(head.weight * scale).float(),
        bias=bias.float(),
        strength=1 / head.penalty,
        reason=f"least generalised cross-validation of {len(head.searched)} penalties",
        accuracy=(accuracy,),
        loss=float(torch.nn.functional.cross_entropy(scores * scale, labels)),
        iterations=1,
        passes=1,
        held_out=HeldOut(rows, (scores * scale).float(), labels),
    )


def _sample(files: FeatureFiles) -> tuple[Tensor, Tensor]:
    """Return the first training rows of each file, as many of each."""
    most = min(SCALE_ROWS, max(SCALE_VALUES // (len(files.classes) + files.width), 1000))
    each = -(-most // len(files.paths))
    parts = [part for path in files.paths for part in _first(files, path, each)]
    features, labels = (torch.cat(column)[:most] for column in zip(*parts, strict=True))
    return features, labels


def _first(files: FeatureFiles, path: Path, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    for features, labels in files.blocks(path, TRAIN):
        yield features[:rows], labels[:rows]
        rows -= len(labels)
        if rows <= 0:
            return
