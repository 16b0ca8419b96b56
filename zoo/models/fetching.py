"""Fetch the published weights of several backbones into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UsageError, WeightsError
from zoo.models.weight_folder import put_weights
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Weights


@dataclass(frozen=True)
class Fetched:
    """The result of fetching weights.

    Args:
        backbone: id.
        weights: tag.
        path: of the file; None if it was not fetched.
        bytes: its size.
        sha256: of the file.
        status: `present`, `copied`, `downloaded` or `installed`; empty if it was not fetched.
        error: why it was not fetched; None if it was.
    """

    backbone: str
    weights: str
    path: Path | None = None
    bytes: int = 0
    sha256: str = ""
    status: str = ""
    error: WeightsError | None = None


def select_weights(
    names: Sequence[str], tag: str | None, registry: Registry
) -> list[tuple[Backbone, Weights]]:
    """Return each backbone with the weights to fetch.

    Args:
        names: of backbones.
        tag: of the weights; None for the default ones.
        registry: of backbones.

    Raises:
        ZooError: a name or tag is unknown, or nothing is published; all such names together.
    """
    selected: list[tuple[Backbone, Weights]] = []
    faults: list[UsageError] = []
    for name in dict.fromkeys(names):
        try:
            backbone = registry.get(name)
            if not backbone.weights:
                raise UsageError(f"{backbone.id} has no published weights", "omit it")
            weights = backbone.find_weights(tag) if tag else backbone.weights[0]
            selected.append((backbone, weights))
        except UsageError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise UsageError(f"{len(faults)} names are wrong: {'; '.join(map(str, faults))}")
    return selected


def fetch_all(selected: Sequence[tuple[Backbone, Weights]], folder: Path) -> Iterator[Fetched]:
    """Fetch weights into a folder, and yield the result of each."""
    for backbone, weights in selected:
        try:
            file = put_weights(backbone, weights, folder)
        except WeightsError as error:
            yield Fetched(backbone.id, weights.tag, error=error)
            continue
        yield Fetched(backbone.id, weights.tag, file.path, file.size, file.sha256, file.status)


def check_fetched(items: Sequence[Fetched]) -> None:
    """Check that all weights were fetched.

    Raises:
        WeightsError: names those that were not.
    """
    errors = [
        WeightsError(f"{item.backbone} {item.weights}: {item.error}")
        for item in items
        if item.error
    ]
    if errors:
        reasons = "; ".join(map(str, errors))
        raise WeightsError(f"{len(errors)} of {len(items)} not fetched: {reasons}")
