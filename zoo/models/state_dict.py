"""Loading tensors into a network, whatever the network makes of a state dict's version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], strict: bool = True) -> Any:
    """Load tensors that are in the network's present form.

    A state dict carries a version for each module beside its tensors, which no tensor file keeps;
    a network that asks for it (MNASNet) refuses a plain mapping.

    Args:
        model: the network, changed in place.
        tensors: by the network's own names.
        strict: whether the names must be all and only the network's.

    Returns:
        What torch returns: `missing_keys` and `unexpected_keys`.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    state = OrderedDict(tensors)
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    return model.load_state_dict(state, strict=strict)
