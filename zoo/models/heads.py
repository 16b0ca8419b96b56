"""Finding a backbone's heads by path, and replacing each like for like.

What is replaced is the leaf that ends in the classes, never its container, which may hold
pretrained layers (ConvNeXt's norm, VGG's 25088x4096). The width comes from the module itself, or,
where a network was published without a head, from what arrives there as it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BrokenBackbone, UsageError, did_you_mean
from zoo.models.head_factory import HeadStack, MeanPool, new_layers
from zoo.models.plugin_errors import guard
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Head, Preprocess, path_steps


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
    """Whether a module ends in the classes by itself: Linear, 1x1 Conv2d, Identity, or zoo's."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, (nn.Linear, nn.Identity, HeadStack))


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
    inside: list[str] = []
    for name, child in module.named_modules():
        within = bool(inside) and f"{dotted}.{name}".startswith(f"{inside[-1]}.")
        if name and is_leaf(child) and not isinstance(child, nn.Identity) and not within:
            inside.append(f"{dotted}.{name}")
    if not inside:
        kind = type(module).__name__
        hint = "a head is a Linear, a 1x1 Conv2d or an Identity, or contains one"
        raise BrokenBackbone(f"head {path!r} is a {kind} with nothing to replace", hint)
    return inside[-1]


def head_width(leaf: nn.Module) -> int | None:
    """Return how many features a leaf reads; None for an Identity."""
    if isinstance(leaf, HeadStack):
        return leaf.width
    if isinstance(leaf, nn.Linear):
        return leaf.in_features
    return leaf.in_channels if isinstance(leaf, nn.Conv2d) else None


def head_classes(leaf: nn.Module) -> int | None:
    """Return how many classes a leaf ends in; None for an Identity."""
    if isinstance(leaf, HeadStack):
        return leaf.classes
    if isinstance(leaf, nn.Linear):
        return leaf.out_features
    return leaf.out_channels if isinstance(leaf, nn.Conv2d) else None


def shapes_at(
    model: nn.Module, path: str, preprocess: Preprocess
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of what enters and what leaves a module as the network runs.

    Args:
        model: the network; it runs once, in eval mode, on one blank image.
        path: dotted path of the module.
        preprocess: whose size and channels the image has.

    Raises:
        BrokenBackbone: not one tensor passes through it.
    """
    seen: list[tuple[Any, Any]] = []
    module = model.get_submodule(path)
    hook = module.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    try:
        run_blank(model, preprocess)
    finally:
        hook.remove()
    if len(seen) != 1 or not all(isinstance(value, Tensor) for value in seen[0]):
        raise BrokenBackbone(f"head {path!r} is not passed once by one tensor as the network runs")
    arrives, leaves = seen[0]
    return tuple(arrives.shape), tuple(leaves.shape)


def run_blank(model: nn.Module, preprocess: Preprocess) -> Any:
    """Run a network once on one blank image, in eval mode, and return its output.

    Raises:
        BrokenBackbone: it fails.
    """
    modes = {part: part.training for part in model.modules()}
    example = next(model.parameters())
    shape = (1, preprocess.channels, preprocess.height, preprocess.width)
    blank = torch.zeros(shape, device=example.device, dtype=example.dtype)
    try:
        model.eval()
        with torch.no_grad(), guard("the network fails on a blank image"):
            return model(blank)
    finally:
        for part, mode in modes.items():
            part.training = mode


def running_width(model: nn.Module, path: str, preprocess: Preprocess) -> int:
    """Return the width of the features that arrive at a module as the network runs.

    Raises:
        BrokenBackbone: nothing arrives there, or not one vector for each image.
    """
    arrives, _ = shapes_at(model, path, preprocess)
    if len(arrives) not in (2, 3):
        raise BrokenBackbone(f"head {path!r} is an Identity and features of {arrives} reach it")
    return arrives[-1]


def _around(model: nn.Module, path: str, preprocess: Preprocess) -> tuple[int, list[nn.Module]]:
    """Return the width of what enters a container, and the layers that make it one vector.

    Raises:
        UsageError: it is not fed with one vector or one map of features for each image.
    """
    arrives, leaves = shapes_at(model, path, preprocess)
    if len(arrives) == 2:
        return arrives[1], []
    inner = head_width(model.get_submodule(resolve_head(model, path)))
    if len(arrives) == 4 and len(leaves) in (2, 4):
        if arrives[1] == inner or inner not in arrives[1:]:
            return arrives[1], [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if arrives[3] == inner:
            return arrives[3], [MeanPool()]
    message = f"--head-at {path}: it is fed with {list(arrives)}, not one vector for each image"
    raise UsageError(message, f"give {resolve_head(model, path)}, or leave it out")


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
    model: nn.Module,
    heads: Sequence[Head],
    classes: int,
    preprocess: Preprocess,
    new: HeadSpec = PLAIN,
) -> list[str]:
    """Replace every head for a new number of classes, like for like.

    Linear by Linear, 1x1 Conv2d by Conv2d, Identity by Linear; bias, device, dtype and mode are
    kept, and so is a `num_classes` attribute. New layers start as torch initialises them.

    Args:
        model: the network, changed in place.
        heads: all heads of the backbone; with a new place, those of `place_head`.
        classes: how many classes the new heads end in.
        preprocess: the input that a network is measured with where its layers do not say a width.
        new: what replaces the main head, and a distilled one; auxiliary ones are replaced by one
            layer.

    Returns:
        The dotted paths of what was put in, in the order of `heads`.

    Raises:
        BrokenBackbone: a path does not resolve, or the widths cannot be read.
        UsageError: the new head cannot stand where it is wanted.
    """
    paths = [_place_of(model, head, new) for head in heads]
    for path in paths:
        _check_alone(model, path)
    widths = [_width_at(model, path, preprocess) for path in paths]
    shape = () if new.at is None else _main_shape(run_blank(model, preprocess))
    reference = next(model.parameters())
    for head, path, (width, before) in zip(heads, paths, widths, strict=True):
        old = model.get_submodule(path)
        like = next(old.parameters(), reference)
        wanted = PLAIN if head.role == "aux" else new
        made = new_layers(wanted, old, width, classes, like, before).train(old.training)
        had = head_classes(model.get_submodule(resolve_head(model, path)))
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, made)
        _set_num_classes(model, path, had, classes)
    if new.at is not None:
        _check_classes(model, classes, preprocess, new.at, (1, classes, *shape[2:]))
    return paths


def _place_of(model: nn.Module, head: Head, new: HeadSpec) -> str:
    """Return the path of what is replaced: the leaf, or what was asked for around it."""
    if head.role == "main" and head.module_path == new.at:
        find_module(model, head.path)
        return head.module_path
    return resolve_head(model, head.path)


def _width_at(model: nn.Module, path: str, preprocess: Preprocess) -> tuple[int, list[nn.Module]]:
    module = model.get_submodule(path)
    if not is_leaf(module):
        return _around(model, path, preprocess)
    return head_width(module) or running_width(model, path, preprocess), []


def _check_classes(
    model: nn.Module, classes: int, preprocess: Preprocess, at: str, expected: tuple[int, ...]
) -> None:
    """Refuse a place after which the network does not end in the classes."""
    try:
        shape = _main_shape(run_blank(model, preprocess))
    except BrokenBackbone as error:
        raise UsageError(f"--head-at {at}: the network does not run with it: {error}") from error
    if shape != expected:
        raise UsageError(f"--head-at {at}: the network then gives {shape}, not {classes} classes")


def _main_shape(output: Any) -> tuple[int, ...]:
    """Return the shape of a network's main output: the tensor itself, or the first in it."""
    while isinstance(output, (Mapping, tuple, list)) and output:
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return tuple(output.shape) if isinstance(output, Tensor) else ()
