"""Finding a backbone's heads by path, and replacing each like for like.

What is replaced is the leaf that ends in the classes, never its container, which may hold
pretrained layers (ConvNeXt's norm, VGG's 25088x4096). The width comes from the module itself, or,
where a network was published without a head, from what arrives there as it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.errors import BrokenBackbone, did_you_mean
from zoo.models.guard import guard
from zoo.spec import Head, Preprocess, path_steps

Leaf = nn.Linear | nn.Conv2d | nn.Identity


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Return the module at a path; `classifier[6]` and `classifier.6` are the same.

    Raises:
        BrokenBackbone: there is none; names the children at the place where the path stops.
    """
    module, walked = model, ""
    for step in path_steps(path):
        children = dict(module.named_children())
        if step not in children:
            place = f"{walked or type(model).__name__} has the children {', '.join(children)}"
            if not children:
                place = f"{walked or type(model).__name__} has no children"
            hint = did_you_mean(step, list(children))
            raise BrokenBackbone(f"no module {path!r}: there is no {step!r}; {place}", hint)
        module = children[step]
        walked = f"{walked}.{step}" if walked else step
    return module


def is_leaf(module: nn.Module) -> bool:
    """Whether a module can end in the classes by itself: Linear, 1x1 Conv2d or Identity."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, (nn.Linear, nn.Identity))


def resolve_head(model: nn.Module, path: str) -> str:
    """Return the path of the leaf that a head path means: `AuxLogits` means `AuxLogits.fc`.

    A container means its last Linear or 1x1 Conv2d.

    Raises:
        BrokenBackbone: the path does not exist, or nothing there can be replaced.
    """
    module = find_module(model, path)
    dotted = ".".join(path_steps(path))
    if is_leaf(module):
        return dotted
    inside = [
        f"{dotted}.{name}"
        for name, child in module.named_modules()
        if name and is_leaf(child) and not isinstance(child, nn.Identity)
    ]
    if not inside:
        kind = type(module).__name__
        hint = "a head is a Linear, a 1x1 Conv2d or an Identity, or contains one"
        raise BrokenBackbone(f"head {path!r} is a {kind} with nothing to replace", hint)
    return inside[-1]


def head_width(leaf: nn.Module) -> int | None:
    """Return how many features a leaf reads; None for an Identity."""
    if isinstance(leaf, nn.Linear):
        return leaf.in_features
    return leaf.in_channels if isinstance(leaf, nn.Conv2d) else None


def head_classes(leaf: nn.Module) -> int | None:
    """Return how many classes a leaf ends in; None for an Identity."""
    if isinstance(leaf, nn.Linear):
        return leaf.out_features
    return leaf.out_channels if isinstance(leaf, nn.Conv2d) else None


def running_width(model: nn.Module, path: str, preprocess: Preprocess) -> int:
    """Return the width of the features that arrive at a module as the network runs.

    Args:
        model: the network; it runs once, in eval mode, on one blank image.
        path: dotted path of the module.
        preprocess: whose size the image has.

    Raises:
        BrokenBackbone: nothing arrives there, or not one vector for each image.
    """
    seen: list[Tensor] = []
    module = model.get_submodule(path)
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    modes = {part: part.training for part in model.modules()}
    example = next(model.parameters())
    blank = torch.zeros(
        1, 3, preprocess.height, preprocess.width, device=example.device, dtype=example.dtype
    )
    try:
        model.eval()
        with torch.no_grad(), guard("the network fails on a blank image"):
            model(blank)
    finally:
        hook.remove()
        for part, mode in modes.items():
            part.training = mode
    if len(seen) != 1 or seen[0].ndim not in (2, 3):
        shapes = [tuple(features.shape) for features in seen]
        raise BrokenBackbone(f"head {path!r} is an Identity and features of {shapes} reach it")
    return seen[0].shape[-1]


def _new_leaf(old: nn.Module, width: int, classes: int, like: Tensor) -> nn.Linear | nn.Conv2d:
    where = {"device": like.device, "dtype": like.dtype}
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(
            width,
            classes,
            kernel_size=1,
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
            **where,  # type: ignore[arg-type]
        )
    biased = old.bias is not None if isinstance(old, nn.Linear) else True
    return nn.Linear(width, classes, bias=biased, **where)


def _check_alone(model: nn.Module, path: str) -> None:
    """Refuse a head that stands in the network twice: replacing it would leave one behind."""
    leaf = model.get_submodule(path)
    names = [name for name, part in model.named_modules(remove_duplicate=False) if part is leaf]
    if len(names) > 1:
        raise BrokenBackbone(f"head {path!r} is one module under {len(names)} names: {names}")


def _set_num_classes(model: nn.Module, path: str, old: int | None, classes: int) -> None:
    """Keep the `num_classes` of every module above a head true."""
    steps = path.split(".")
    for depth in range(len(steps)):
        owner = model.get_submodule(".".join(steps[:depth]))
        stated = getattr(owner, "num_classes", None)
        if isinstance(stated, int) and stated in (old, 0):
            owner.num_classes = classes  # type: ignore[assignment]


def replace_heads(
    model: nn.Module, heads: Sequence[Head], classes: int, preprocess: Preprocess
) -> list[str]:
    """Replace every head for a new number of classes, like for like.

    Linear by Linear, 1x1 Conv2d by Conv2d, Identity by Linear; bias, device, dtype and mode are
    kept, and so is a `num_classes` attribute. The new leaves start as torch initialises them.

    Args:
        model: the network, changed in place.
        heads: all heads of the backbone.
        classes: how many classes the new heads end in.
        preprocess: the input that a network without heads is measured with.

    Returns:
        The dotted paths of the new leaves, in the order of `heads`.

    Raises:
        BrokenBackbone: a path does not resolve, or the widths cannot be read.
    """
    paths = [resolve_head(model, head.path) for head in heads]
    for path in paths:
        _check_alone(model, path)
    widths = [
        head_width(model.get_submodule(path)) or running_width(model, path, preprocess)
        for path in paths
    ]
    reference = next(model.parameters())
    for path, width in zip(paths, widths, strict=True):
        old = model.get_submodule(path)
        like = getattr(old, "weight", reference)
        new = _new_leaf(old, width, classes, like).train(old.training)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
        _set_num_classes(model, path, head_classes(old), classes)
    return paths
