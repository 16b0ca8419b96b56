"""The network inside of torch's wrappers."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from zoo.errors import UsageError

# The child of a module that `torch.compile` returns; importing its class takes seconds.
COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network that torch's wrappers contain, in any nesting; any other one as it is.

    The wrappers are those of `torch.compile`, `DataParallel`, `DistributedDataParallel` and
    `AveragedModel`, which prefix the names of a network's tensors.

    Raises:
        UsageError: it is no network.
    """
    if not isinstance(model, nn.Module):
        hint = "give a torch module; that of a loaded model is its attribute `module`"
        raise UsageError(f"a {type(model).__name__} is no network", hint)
    while True:
        inner = model._modules.get(COMPILED)
        if isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
