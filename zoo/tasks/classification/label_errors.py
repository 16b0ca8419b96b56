"""Probable label errors by confident learning (Northcutt et al., 2021, arXiv 1911.00068)."""

from __future__ import annotations

from torch import Tensor


def probable_errors(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Return rows whose label is probably another class, most probable first, and that class.

    The threshold of a class is the mean probability of it over the images labelled with it. An
    image is counted for the class of the highest probability among those that reach their
    threshold; where that is not its label, it is a probable error. The order is that of the
    normalized margin: the probability of the label less that of the other class.

    Args:
        probabilities: `[images, classes]`, predicted by classifiers that were not trained on the
            image.
        labels: `[images]`.
    """
    exact = probabilities.double().cpu()
    labels = labels.cpu()
    classes = exact.shape[1]
    own = exact.gather(1, labels[:, None])[:, 0]
    counts = labels.bincount(minlength=classes)
    sums = exact.new_zeros(classes).index_add_(0, labels, own)
    # A class without images has no threshold that could be reached.
    thresholds = (sums / counts).nan_to_num(nan=2.0).clamp(max=2.0)
    reached = exact >= thresholds - 1e-12
    best = exact.where(reached, exact.new_tensor(-1.0)).argmax(dim=1)
    wrong = reached.any(dim=1) & (best != labels)
    rows = wrong.nonzero().flatten()
    margin = own[rows] - exact[rows, best[rows]]
    order = margin.argsort(stable=True)
    return [(int(row), int(best[row])) for row in rows[order]]
