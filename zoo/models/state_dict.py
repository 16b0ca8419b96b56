"""Load tensors into a network, independent of the version of its state dict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], strict: bool = True) -> Any:
    """Load tensors that are in the network's current format.

    A state dict has a version for each module beside its tensors, which tensor files do not store;
    a network that checks it (MNASNet) refuses a plain mapping.

    Args:
        model: modified in place.
        tensors: by the network's own names.
        strict: whether the names must match the network's exactly.

    Returns:
        torch's `missing_keys` and `unexpected_keys`.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    state = OrderedDict(tensors)
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    return model.load_state_dict(state, strict=strict)
