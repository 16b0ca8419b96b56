"""The network inside of torch's wrappers."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

# The child of a module that `torch.compile` returns; importing its class takes seconds.
COMPILED = "_orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network that torch's wrappers contain, in any nesting; any other one as it is.

    The wrappers are those of `torch.compile`, `DataParallel`, `DistributedDataParallel` and
    `AveragedModel`, which prefix the names of a network's tensors.
    """
    while True:
        inner = model._modules.get(COMPILED)
        if isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
