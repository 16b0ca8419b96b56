"""Files of weights: import those of others, fetch published ones, list and clear the cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.api.lookup import get
from zoo.options.arguments import check_arguments, names_arguments
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.cache import CacheEntry
    from zoo.engine.run.importing import Imported
    from zoo.models.fetching import Fetched
    from zoo.options.given import FilePath


@names_arguments
def import_weights(
    source: FilePath,
    backbone: Backbone | str | None = None,
    *,
    classes: Sequence[str] | None = None,
    out: FilePath | None = None,
) -> Imported:
    """Convert a checkpoint of tensors, such as a `.pth`, to safetensors, without running its code.

    Args:
        source: as `torch.save` wrote it, or safetensors.
        backbone: whose weights these are: the result is a model file; None for a state dict.
        classes: names in the order of the outputs; by default those in the checkpoint, or numbers.
        out: a `.safetensors` file; by default the source with this suffix.

    Returns:
        `path`, digests, `classes`, and `notices` of what was taken off, left out or assumed.

    Raises:
        UsageError: the output exists, or the number of classes is not that of the head's outputs.
        WeightsError: the source needs code, is damaged, or does not fit the backbone.
    """
    from zoo.engine.run.importing import import_weights as convert

    check_arguments(out=out)
    described = None if backbone is None else get(backbone)
    target = None if out is None else Path(out)
    return convert(Path(source), load_registry(), target, described, classes)


@names_arguments
def fetch(
    names: str | Enum | Backbone | Iterable[str | Enum | Backbone],
    to: FilePath,
    weights: str | None = None,
) -> list[Fetched]:
    """Fetch the published weights of backbones into a folder, for `ZOO_WEIGHTS_DIR`.

    Files that are there are verified, and not fetched again.

    Args:
        names: a backbone or its name, or several.
        to: the folder; created if needed.
        weights: tag of the published weights; None for the default ones.

    Returns:
        For each backbone `path`, `bytes`, `sha256` and `status`: `present`, `copied`,
        `downloaded`, or `installed` in a package and not copied.

    Raises:
        UsageError: a name or tag is unknown, or nothing is published.
        WeightsError: some cannot be fetched; the others are.
    """
    from zoo.models.fetching import check_fetched, fetch_all, select_weights

    several = [names] if isinstance(names, (str, Enum, Backbone)) else names
    selected = select_weights([name_of(each) for each in several], weights, load_registry())
    items = list(fetch_all(selected, Path(to)))
    check_fetched(items)
    return items


@names_arguments
def list_cache(*patterns: str) -> list[CacheEntry]:
    """Return what is cached: features, conversions, weights, catalogues, downloads.

    Args:
        patterns: kinds (`features`, `conversions`, `weights`, `catalogues`, `downloads`), or
            shell-style patterns of names; entries that match any of them; none for all.

    Raises:
        UsageError: a pattern is neither a kind nor matches an entry.
    """
    from zoo.cache import select

    return select(patterns)


@names_arguments
def clear_cache(*patterns: str) -> list[CacheEntry]:
    """Delete entries of the cache, and return them; features in use by a training stay.

    Args:
        patterns: as for `list_cache`; none for all.

    Raises:
        UsageError: a pattern is neither a kind nor matches an entry.
        EnvironmentProblem: the system refuses some; the others are deleted.
    """
    from zoo.cache import clear, select

    cleared = clear(select(patterns))
    if cleared.problem is not None:
        raise cleared.problem
    return cleared.deleted
