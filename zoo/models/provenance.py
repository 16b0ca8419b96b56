"""Provenance of a network, recorded on the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from zoo.errors import UsageError
from zoo.models.base_weights import BaseWeights
from zoo.models.wrappers import unwrap
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Backbone, Preprocess

ATTRIBUTE = "_zoo_provenance"


@dataclass(frozen=True)
class Provenance:
    """How a network was built.

    Args:
        backbone: its description, with the build options applied and the heads that it has.
        base: the weights that it started from.
        new_head: replaced the main head.
        previous_classes: of the main head, before it was replaced; None where it was not.
    """

    backbone: Backbone
    base: BaseWeights
    new_head: HeadSpec = PLAIN
    previous_classes: int | None = None

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Builder arguments."""
        return self.base.kwargs

    @property
    def preprocess(self) -> Preprocess:
        """From image to input."""
        return self.base.preprocess


def record_provenance(model: nn.Module, provenance: Provenance) -> None:
    """Record the provenance of a network, for `provenance_of`."""
    model.__dict__[ATTRIBUTE] = provenance


def provenance_of(model: nn.Module, backbone: Backbone | None = None) -> Provenance:
    """Return the provenance of a network.

    Args:
        model: any network, also in a wrapper of torch.
        backbone: its description, for a network that zoo did not build.

    Raises:
        UsageError: zoo did not build it and no description is given, or the description is of
            another backbone.
    """
    model = unwrap(model)
    made = model.__dict__.get(ATTRIBUTE)
    if isinstance(made, Provenance):
        if backbone is None or backbone.id == made.backbone.id:
            return made
        message = f"the network is a {made.backbone.id}, not a {backbone.id}"
        raise UsageError(message, f"give {made.backbone.id}, or omit it")
    if backbone is None:
        hint = "name its backbone, or build it with zoo.get(NAME).build()"
        raise UsageError(f"zoo did not build this {type(model).__name__}", hint)
    base = BaseWeights(kind="none", kwargs=backbone.kwargs, preprocess=backbone.preprocess)
    return Provenance(backbone, base)
