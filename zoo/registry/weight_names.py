"""Names of weights that stand for a backbone with these weights as its default.

timm's `resnet18.a1_in1k`, with or without `timm/` or `hf_hub:timm/`, and torchvision's
`ResNet50_Weights.IMAGENET1K_V2`; `NAME.TAG` for every backbone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from zoo.errors import UsageError, nearest
from zoo.registry.discovery import BUILTIN

if TYPE_CHECKING:
    from zoo.registry.backbone_sources import DerivedSource, Source
    from zoo.spec import Backbone

HUB = ("hf_hub:", "hf-hub:")


def find_named(
    query: str, plugins: Mapping[str, Source], derived: Mapping[str, DerivedSource]
) -> Backbone | None:
    """Return the backbone that a name of weights stands for, with these as its default.

    Args:
        query: the name.
        plugins: sources in the order in which a bare name is looked up.
        derived: sources of registry files, after them.

    Raises:
        UsageError: two third parties have the backbone and the tag.
    """
    address = next((query.removeprefix(prefix) for prefix in HUB if query.startswith(prefix)), "")
    matches = [
        backbone.with_selected(weights)
        for backbone, tag in _split(address or query, [*plugins.values(), *derived.values()])
        if (weights := backbone.published_as(tag)) is not None
    ]
    if len(matches) > 1 and matches[0].source not in BUILTIN:
        ids = ", ".join(f"{match.id}.{match.selected}" for match in matches)
        raise UsageError(f"the name {query!r} is ambiguous", f"choose one of {ids}")
    if matches:
        return matches[0]
    if not address and "." not in query:
        return None
    # Names that do not begin with that of the backbone, and repositories of other owners.
    for backbone in _all(plugins.values()):
        for weights in backbone.weights:
            repository = (weights.hub or "").partition(":")[0]
            if query in weights.names or (address and address == repository):
                return backbone.with_selected(weights)
    return None


def suggest_named(query: str, plugins: Mapping[str, Source]) -> tuple[str, ...]:
    """Return the nearest names of weights, of the backbone before the dot where there is one."""
    known = [
        f"{backbone.id}.{weights.tag}"
        for backbone, _ in _split(query, list(plugins.values()))
        for weights in backbone.weights
    ]
    if not known and "." in query:
        known = [
            name
            for backbone in _all(plugins.values())
            for weights in backbone.weights
            for name in weights.names
        ]
    return nearest(query, known)


def _all(sources: Iterable[Source]) -> Iterator[Backbone]:
    for source in sources:
        yield from source.select(lambda name: True)


def _split(query: str, sources: Sequence[Source | DerivedSource]) -> Iterator[tuple[Backbone, str]]:
    """Yield each backbone and tag that `NAME.TAG` or `source/NAME.TAG` may mean."""
    prefix, slash, rest = query.rpartition("/")
    for index, character in enumerate(rest):
        if character == ".":
            name, tag = rest[:index], rest[index + 1 :]
            for source in sources:
                if (not slash or source.name == prefix) and name in source:
                    yield source.get(name), tag


def published_tags(names: Iterable[str], sources: Iterable[Source | DerivedSource]) -> list[str]:
    """Return the tags of the weights of backbones, without enumerating a library.

    Args:
        names: names or ids of backbones; others are left out.
        sources: of backbones, the first of which has a bare name.
    """
    known = [source for source in sources if source.is_enumerated()]
    tags: dict[str, None] = {}
    for name in names:
        prefix, slash, bare = name.rpartition("/")
        for source in known:
            if (not slash or source.name == prefix) and bare in source:
                tags |= dict.fromkeys(weights.tag for weights in source.get(bare).weights)
                break
    return [*tags]
