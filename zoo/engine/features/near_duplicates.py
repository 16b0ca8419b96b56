"""Find images that look alike by their features, such as copies in another size or quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.data.names import relative_path
from zoo.data.scan import shorten
from zoo.data.split import Split
from zoo.engine.features.cache import FeatureSet
from zoo.errors import counted

# Cosine of centred features. Measured with EfficientNet-Lite0 on the embedded set, 96 images
# against 387: the three pairs above are variants of one drawing; a copy of JPEG quality 50 has a
# median of 0.92, one of half the size 0.85, and the most similar other image 0.52.
SIMILAR = 0.95
# Multiplications; about two seconds on two cores. The pass over so many images takes minutes.
LIMIT = 100_000_000_000
BLOCK = 4096


def near_duplicates(
    train: FeatureSet, other: FeatureSet, path: str, threshold: float = SIMILAR
) -> list[tuple[int, int, float]]:
    """Return the images of a split that look like one of the training split.

    Args:
        train: features of the training split.
        other: features of another split.
        path: of the head whose input is compared.
        threshold: cosine of centred features from which two images are alike.

    Returns:
        Positions of an image among the readable ones of `other` and of the most similar one of
        `train`, and their cosine, most similar first; empty if they are not in memory, or comparing
        takes too long.
    """
    loaded, reference = other.loaded, train.loaded
    if loaded is None or reference is None:
        return []
    a = loaded[path][:: other.views].flatten(1).float()
    b = reference[path][:: train.views].flatten(1).float()
    if len(a) * len(b) * a.shape[1] > LIMIT:
        return []
    mean = b.mean(dim=0)
    a, b = (torch.nn.functional.normalize(each - mean, dim=1) for each in (a, b))
    found = []
    for first in range(0, len(a), BLOCK):
        values, indices = (a[first : first + BLOCK] @ b.T).max(dim=1)
        for row in torch.nonzero(values >= threshold).flatten().tolist():
            found.append((first + row, int(indices[row]), float(values[row])))
    return sorted(found, key=lambda each: -each[2])


def similar_images(
    train: tuple[Split, FeatureSet], other: tuple[Split, FeatureSet], path: str
) -> list[tuple[int, int, float]]:
    """Return `near_duplicates` by their positions in the splits, equal images included."""

    def positions(features: FeatureSet) -> list[int]:
        return torch.nonzero(features.row >= 0).flatten().tolist()

    own, reference = positions(other[1]), positions(train[1])
    found = near_duplicates(train[1], other[1], path)
    return [(own[row], reference[nearest], cosine) for row, nearest, cosine in found]


def describe_near_duplicates(
    train: tuple[Split, FeatureSet],
    other: tuple[Split, FeatureSet],
    path: str,
    root: Path | None = None,
    similar: Sequence[tuple[int, int, float]] | None = None,
) -> str | None:
    """Return a notice of images that look like one of the training split but are not equal.

    Args:
        train: the training split and its features.
        other: another split and its features.
        path: of the head whose input is compared.
        root: the folder that paths are shown relative to.
        similar: of `similar_images`; None to compare them here.
    """
    pairs = []
    found = similar_images(train, other, path) if similar is None else similar
    for index, original, _ in found:
        if other[0].content(index) != train[0].content(original):
            names = other[0].where(index), train[0].where(original)
            pairs.append(" ~ ".join(relative_path(name, root) for name in names))
    if not pairs:
        return None
    are = "looks" if len(pairs) == 1 else "look"
    return (
        f"{counted(len(pairs), 'image')} of {other[0].name} {are} like one of {train[0].name}, by "
        f"features: {shorten(pairs)}"
    )
