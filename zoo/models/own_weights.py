"""Load a user's own weights: a state dict, or a model file of zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.models.base_weights import BaseWeights
from zoo.models.head_rows import match_rows
from zoo.models.heads import resolve_head
from zoo.models.state_dict import load_state
from zoo.models.state_fit import check_values, compare_state, describe_casts, without_prefix
from zoo.spec import Backbone


def load_own(
    model: nn.Module, backbone: Backbone, base: BaseWeights, classes: Sequence[str] = ()
) -> BaseWeights:
    """Load a user's state dict, without the heads that do not fit.

    Args:
        model: of the backbone; modified in place.
        backbone: with the heads that the network has.
        base: with the content of the file.
        classes: names of the network's outputs; rows of a model file's heads are matched to them.
            Empty to take heads as they are.

    Returns:
        The record of the weights, with what of them was loaded.

    Raises:
        WeightsError: an entry outside the heads does not fit, or a value is impossible.
    """
    assert base.file is not None
    state = model.state_dict()
    tensors, prefix = without_prefix(base.file.tensors, state)
    check_values(tensors, state, f"{base.path}")
    heads = [resolve_head(model, head.path) for head in backbone.heads]
    if misfit := compare_state(tensors, state, without=heads):
        hint = "give a file with the backbone's own state dict"
        raise WeightsError(f"{base.path} does not fit {backbone.id}: {misfit}", hint)
    matched, rows = tensors, None
    if classes and base.classes:
        matched, rows = match_rows(model, heads, tensors, base.classes, classes)
    new_heads = tuple(path for path in heads if not _fits_inside(path, matched, state))
    inside = tuple(f"{path}." for path in new_heads)
    fitting = {name: tensor for name, tensor in matched.items() if not name.startswith(inside)}
    load_state(model, fitting, strict=False)
    return replace(
        base,
        sha256=base.file.sha256,
        left_out=tuple(sorted(name for name in tensors if name.startswith(inside))),
        prefix=prefix,
        casts=describe_casts({name: tensors[name] for name in fitting}, state),
        new_heads=new_heads,
        rows=None if heads[:1] == list(new_heads[:1]) else rows,
        file=None,
    )


def _fits_inside(path: str, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Whether the entries of a module fit."""
    parts = (
        {name: value for name, value in entries.items() if name.startswith(f"{path}.")}
        for entries in (tensors, state)
    )
    own, network = parts
    return not compare_state(own, network)
