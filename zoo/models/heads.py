"""Resolve a backbone's heads by path, and replace each by the same type of layer.

By default the leaf layer that ends in the classes is replaced, not its container, which may have
pretrained layers (ConvNeXt's norm, VGG's 25088x4096). The width is that of the old layer, or, where
a network was published without a head, that of the features at its path in a forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BrokenBackbone, UsageError, counted, did_you_mean
from zoo.models.head_factory import HeadStack, MeanPool, new_layers
from zoo.models.network_output import named_outputs
from zoo.models.plugin_errors import plugin_errors
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Head, Preprocess, path_steps


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Return the module at a path; `classifier[6]` and `classifier.6` are the same.

    Raises:
        BrokenBackbone: there is none; the message lists the children where the path ends.
    """
    module, resolved = model, ""
    for step in path_steps(path):
        children = dict(module.named_children())
        if step not in children:
            parent = resolved or type(model).__name__
            reason = f"no child {step!r}; its children are {', '.join(children)}"
            message = f"no module {path!r}: {parent} has {reason if children else 'no children'}"
            raise BrokenBackbone(message, did_you_mean(step, list(children)))
        module = children[step]
        resolved = f"{resolved}.{step}" if resolved else step
    return module


def is_leaf(module: nn.Module) -> bool:
    """Whether a module can be a head: Linear, 1x1 Conv2d, Identity or `HeadStack`."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, (nn.Linear, nn.Identity, HeadStack))


def resolve_head(model: nn.Module, path: str) -> str:
    """Return the path of the leaf of a head path: that of `AuxLogits` is `AuxLogits.fc`.

    The leaf of a container is its last Linear or 1x1 Conv2d.

    Raises:
        BrokenBackbone: the path does not exist, or nothing there can be replaced.
    """
    module = find_module(model, path)
    dotted = ".".join(path_steps(path))
    if is_leaf(module):
        return dotted
    leaves: list[str] = []
    for name, child in module.named_modules():
        nested = bool(leaves) and f"{dotted}.{name}".startswith(f"{leaves[-1]}.")
        if name and is_leaf(child) and not isinstance(child, nn.Identity) and not nested:
            leaves.append(f"{dotted}.{name}")
    if not leaves:
        kind = type(module).__name__
        hint = "a head is a Linear, a 1x1 Conv2d or an Identity, or contains one"
        raise BrokenBackbone(f"head {path!r} is a {kind} with nothing to replace", hint)
    return leaves[-1]


def head_width(leaf: nn.Module) -> int | None:
    """Return the number of input features of a leaf; None for an Identity."""
    if isinstance(leaf, HeadStack):
        return leaf.width
    if isinstance(leaf, nn.Linear):
        return leaf.in_features
    return leaf.in_channels if isinstance(leaf, nn.Conv2d) else None


def head_classes(leaf: nn.Module) -> int | None:
    """Return the number of output classes of a leaf; None for an Identity."""
    if isinstance(leaf, HeadStack):
        return leaf.classes
    if isinstance(leaf, nn.Linear):
        return leaf.out_features
    return leaf.out_channels if isinstance(leaf, nn.Conv2d) else None


def shapes_at(
    model: nn.Module, path: str, preprocess: Preprocess
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of a module's input and output in a forward pass.

    Args:
        model: the network; it runs once, in eval mode, on one blank image.
        path: dotted path of the module.
        preprocess: size and channels of the image.

    Raises:
        BrokenBackbone: the module does not run exactly once, from one tensor to one tensor.
    """
    calls: list[tuple[Any, Any]] = []
    module = model.get_submodule(path)
    hook = module.register_forward_hook(lambda _, args, output: calls.append((args[0], output)))
    try:
        run_blank(model, preprocess)
    finally:
        hook.remove()
    if len(calls) != 1 or not all(isinstance(value, Tensor) for value in calls[0]):
        message = f"head {path!r} does not run once on one tensor in a forward pass"
        raise BrokenBackbone(message)
    features, output = calls[0]
    return tuple(features.shape), tuple(output.shape)


def first_weight(model: nn.Module) -> nn.Parameter:
    """Return the first floating-point parameter of a network, for its device and dtype."""
    return next(each for each in model.parameters() if each.is_floating_point())


def blank_images(model: nn.Module, preprocess: Preprocess, count: int) -> Tensor:
    """Return a batch of zeros, `[count, channels, height, width]`, on a network's device."""
    like = first_weight(model)
    shape = (count, preprocess.channels, preprocess.height, preprocess.width)
    return torch.zeros(shape, device=like.device, dtype=like.dtype)


def run_blank(model: nn.Module, preprocess: Preprocess) -> Any:
    """Run a network once on one blank image, in eval mode, and return its output.

    Raises:
        BrokenBackbone: it fails.
    """
    modes = {part: part.training for part in model.modules()}
    blank = blank_images(model, preprocess, 1)
    try:
        model.eval()
        with torch.no_grad(), plugin_errors("the network fails on a blank image"):
            return model(blank)
    finally:
        for part, mode in modes.items():
            part.training = mode


def running_width(model: nn.Module, path: str, preprocess: Preprocess) -> int:
    """Return the width of a module's input features in a forward pass.

    Raises:
        BrokenBackbone: the module does not run, or its input is not one vector per image.
    """
    shape, _ = shapes_at(model, path, preprocess)
    if len(shape) not in (2, 3):
        raise BrokenBackbone(f"head {path!r} is an Identity whose input has the shape {shape}")
    return shape[-1]


def _container_width(
    model: nn.Module, path: str, preprocess: Preprocess
) -> tuple[int, list[nn.Module]]:
    """Return the width of a container's input, and the layers that pool it to one vector.

    Raises:
        UsageError: its input is not one vector or one feature map per image.
    """
    shape, output_shape = shapes_at(model, path, preprocess)
    if len(shape) == 2:
        return shape[1], []
    leaf_width = head_width(model.get_submodule(resolve_head(model, path)))
    if len(shape) == 4 and len(output_shape) in (2, 4):
        if shape[1] == leaf_width or leaf_width not in shape[1:]:
            return shape[1], [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if shape[3] == leaf_width:
            return shape[3], [MeanPool()]
    message = f"--head-at {path}: its input is {list(shape)}, not one vector for each image"
    raise UsageError(message, f"give {resolve_head(model, path)}, or leave it out")


def _check_not_shared(model: nn.Module, path: str) -> None:
    """Check that a head is not a shared module, whose other references would not be replaced."""
    leaf = model.get_submodule(path)
    names = [name for name, part in model.named_modules(remove_duplicate=False) if part is leaf]
    if len(names) > 1:
        raise BrokenBackbone(f"head {path!r} is one module under {len(names)} names: {names}")


def _set_num_classes(model: nn.Module, path: str, old: int | None, classes: int) -> None:
    """Update the `num_classes` of every module that contains a head."""
    steps = path.split(".")
    for depth in range(len(steps)):
        owner = model.get_submodule(".".join(steps[:depth]))
        value = getattr(owner, "num_classes", None)
        if isinstance(value, int) and value in (old, 0):
            owner.num_classes = classes  # type: ignore[assignment]


def replace_heads(
    model: nn.Module,
    heads: Sequence[Head],
    classes: int,
    preprocess: Preprocess,
    new: HeadSpec = PLAIN,
) -> list[str]:
    """Replace every head for a new number of classes, preserving its type.

    Linear by Linear, 1x1 Conv2d by Conv2d, Identity by Linear; bias, device, dtype and mode are
    preserved, and `num_classes` attributes updated. New layers have torch's initialisation.

    Args:
        model: modified in place.
        heads: all heads of the backbone; with a new path, those of `place_head`.
        classes: number of classes of the new heads.
        preprocess: input of the forward pass that measures widths which no layer states.
        new: replaces the main head and distilled ones; auxiliary heads are replaced by one layer.

    Returns:
        The dotted paths of the new heads, in the order of `heads`.

    Raises:
        BrokenBackbone: a path does not resolve, or a width cannot be determined.
        UsageError: the new head is not possible at its path.
    """
    paths = [_replaced_path(model, head, new) for head in heads]
    for path in paths:
        _check_not_shared(model, path)
    widths = [_input_width(model, path, preprocess) for path in paths]
    shape = () if new.at is None else _main_shape(run_blank(model, preprocess))
    reference = first_weight(model)
    for head, path, (width, before) in zip(heads, paths, widths, strict=True):
        old = model.get_submodule(path)
        like = next(old.parameters(), reference)
        spec = PLAIN if head.role == "aux" else new
        layer = new_layers(spec, old, width, classes, like, before).train(old.training)
        old_classes = head_classes(model.get_submodule(resolve_head(model, path)))
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)
        _set_num_classes(model, path, old_classes, classes)
    if new.at is not None:
        _check_classes(model, classes, preprocess, new.at, (1, classes, *shape[2:]))
    return paths


def _replaced_path(model: nn.Module, head: Head, new: HeadSpec) -> str:
    """Return the path of the replaced module: the leaf, or the requested container."""
    if head.role == "main" and head.module_path == new.at:
        find_module(model, head.path)
        return head.module_path
    return resolve_head(model, head.path)


def _input_width(
    model: nn.Module, path: str, preprocess: Preprocess
) -> tuple[int, list[nn.Module]]:
    module = model.get_submodule(path)
    if not is_leaf(module):
        return _container_width(model, path, preprocess)
    return head_width(module) or running_width(model, path, preprocess), []


def _check_classes(
    model: nn.Module, classes: int, preprocess: Preprocess, at: str, expected: tuple[int, ...]
) -> None:
    """Check that the network's main output has the expected shape after the replacement."""
    try:
        shape = _main_shape(run_blank(model, preprocess))
    except BrokenBackbone as error:
        raise UsageError(f"--head-at {at}: the network does not run with it: {error}") from error
    if shape != expected:
        raise UsageError(
            f"--head-at {at}: the network returns {shape}, not {counted(classes, 'class')}"
        )


def _main_shape(output: Any) -> tuple[int, ...]:
    """Return the shape of a network's main output: the output, or its first tensor."""
    output = named_outputs(output)
    while isinstance(output, (Mapping, tuple, list)) and output:
        output = named_outputs(
            next(iter(output.values() if isinstance(output, Mapping) else output))
        )
    return tuple(output.shape) if isinstance(output, Tensor) else ()
