"""How a network was made, noted on the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from zoo.errors import UsageError
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Backbone, Preprocess

MADE = "_zoo_made"


@dataclass(frozen=True)
class Base:
    """The weights that a network starts from.

    Args:
        kind: `published`, `file` or `none`.
        tag: of published weights.
        sha256: digest of the published file, or of the user's.
        license: as published; None where not stated.
        left_out: entries of a user's file that do not fit the heads.
        untrained: layers below the head that were published without values.
    """

    kind: str
    tag: str | None = None
    sha256: str | None = None
    license: str | None = None
    left_out: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """How a network was made; kept on it, so that it need not be said again.

    Args:
        backbone: its description, with the changes that were asked for and the heads as they are.
        kwargs: builder arguments.
        preprocess: from image to input.
        base: the weights that it started from.
        new_head: what replaced the main head.
        before: how many classes the main head ended in before it was replaced; None where it was
            not.
    """

    backbone: Backbone
    kwargs: Mapping[str, Any]
    preprocess: Preprocess
    base: Base
    new_head: HeadSpec = PLAIN
    before: int | None = None


def how_made(model: nn.Module, backbone: Backbone | None = None) -> Made:
    """Return how zoo made a network.

    Args:
        model: any network.
        backbone: its description, for a network that zoo did not make.

    Raises:
        UsageError: zoo did not make it, and there is no description, or it is of another backbone.
    """
    made = model.__dict__.get(MADE)
    if isinstance(made, Made):
        if backbone is None or backbone.id == made.backbone.id:
            return made
        raise UsageError(f"the network is a {made.backbone.id}, not a {backbone.id}")
    if backbone is None:
        hint = "name its backbone, or build it with zoo.get(NAME).build()"
        raise UsageError(f"zoo did not build this {type(model).__name__}", hint)
    return Made(backbone, backbone.kwargs, backbone.preprocess, Base("none"))
