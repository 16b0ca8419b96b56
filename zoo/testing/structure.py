"""Checks of a network's structure: heads, outputs and sizes, for 1, 2 and 10 classes."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Sequence
from itertools import count

import torch
from torch import nn

from zoo.errors import BrokenBackbone, UsageError, counted
from zoo.models.build import resolve_and_build
from zoo.models.build_options import BuildOptions, options_refused
from zoo.models.heads import (
    head_classes,
    head_width,
    resolve_head,
    shapes_at,
)
from zoo.models.input_size import check_size
from zoo.spec import Weights
from zoo.testing.findings import CheckFailed, NotApplicable
from zoo.testing.subject import Subject, forward_zeros

CLASSES = (1, 2, 10)


def builds_offline(subject: Subject) -> str:
    """Build the network while connections are refused."""
    model = subject.published
    if subject.connections:
        raise CheckFailed(f"its builder opens a network connection: {subject.connections[0]}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stated = subject.backbone.params
    if stated is not None and stated != parameters:
        raise CheckFailed(f"it has {parameters:,} parameters, its description states {stated:,}")
    return f"{type(model).__name__} with {parameters:,} parameters"


def refuses_without_head(subject: Subject) -> str:
    """Build a network without a head for 10 classes."""
    if not subject.backbone.refuse:
        raise NotApplicable("it can be fine-tuned")
    try:
        resolve_and_build(subject.backbone, "none", 10)
    except UsageError as error:
        if subject.backbone.refuse in error.message:
            return error.message
        raise CheckFailed(f"the error omits the reason: {error.message}") from error
    raise CheckFailed("it has no head, but was built for 10 classes")


def heads_resolve(subject: Subject) -> str:
    """Resolve the path of every head in the network."""
    model, texts = subject.published, []
    for head, leaf in zip(subject.backbone.heads, subject.head_paths, strict=True):
        inside = "" if leaf == head.module_path else f" resolves to {leaf}:"
        texts.append(f"{head.path}{inside} {type(model.get_submodule(leaf)).__name__}")
    if twice := [path for path, times in Counter(subject.head_paths).items() if times > 1]:
        raise CheckFailed(f"two heads resolve to {twice[0]}: {', '.join(texts)}")
    return ", ".join(texts)


def weights_fit(subject: Subject) -> str:
    """Build the network for each set of its published weights, and compare its heads."""
    backbone = subject.backbone
    if not backbone.weights:
        raise NotApplicable("no weights are published")
    distinct: dict[tuple[object, ...], Weights] = {}
    for weights in backbone.weights:
        size = backbone.preprocess_for(weights).size
        distinct.setdefault((weights.num_classes, size), weights)
    for weights in distinct.values():
        model = subject.build({**backbone.kwargs, **weights.kwargs})
        for head, path in zip(backbone.heads, subject.head_paths, strict=True):
            try:
                leaf = resolve_head(model, head.path)
            except BrokenBackbone as error:
                raise CheckFailed(f"{error.message}, in the network of {weights.tag}") from error
            if leaf != path:
                message = f"{head.path} resolves to {leaf} in the network of {weights.tag}"
                raise CheckFailed(f"{message}, to {path} in the default one")
    return f"{counted(len(distinct), 'variant')} of the network for {len(backbone.weights)} weights"


def _modules_outside(model: nn.Module, heads: Sequence[str]) -> dict[str, str]:
    """Return class and parameter shapes of every module except the heads."""
    return {
        name: f"{type(part).__name__} {[tuple(p.shape) for p in part.parameters(recurse=False)]}"
        for name, part in model.named_modules()
        if name not in heads
    }


def _is_plain(old: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer has the tensors of its base class, and computes as it does."""
    if not set(old.state_dict()) <= {"weight", "bias"}:
        return False
    if type(old).forward is kind.forward:
        return True
    own = copy.deepcopy(old).to_empty(device="cpu")
    pixels = (1, 1) if kind is nn.Conv2d else ()
    inputs = torch.randn(2, head_width(old) or 0, *pixels)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.normal_()
        return torch.allclose(own(inputs), kind.forward(own, inputs))


def _mismatch(old: nn.Module, new: nn.Module, classes: int) -> str | None:
    """Return how a new head differs from the old one beside its classes, or None."""
    kind: type[nn.Module] = nn.Conv2d if isinstance(old, nn.Conv2d) else nn.Linear
    if type(new) is not kind or (isinstance(old, kind) and not _is_plain(old, kind)):
        return f"a {type(old).__name__} was replaced with a {type(new).__name__}"
    if head_classes(new) != classes:
        return f"it has {head_classes(new)} outputs, not {classes}"
    if head_width(old) not in (None, head_width(new)):
        return f"it has {head_width(new)} input features, not {head_width(old)}"
    if not isinstance(old, nn.Identity) and (old.bias is None) != (new.bias is None):
        return "its bias was added or removed"
    before = next(old.parameters(), None)
    after = next(new.parameters())
    if before is not None and (before.dtype, before.device) != (after.dtype, after.device):
        return f"it is {after.dtype} on {after.device}, not {before.dtype} on {before.device}"
    return None if new.training == old.training else "its training mode changed"


def replaced_like_for_like(subject: Subject) -> str:
    """Replace the heads, and compare every module before and after."""
    heads = subject.head_paths
    before = subject.published
    modules = _modules_outside(before, heads)
    for classes in CLASSES:
        model = subject.with_classes(classes)
        for path in heads:
            mismatch = _mismatch(before.get_submodule(path), model.get_submodule(path), classes)
            if mismatch:
                raise CheckFailed(f"{path}, {classes} classes: {mismatch}")
        after = _modules_outside(model, heads)
        if changed := [name for name, module in after.items() if modules[name] != module]:
            raise CheckFailed(
                f"{counted(len(changed), 'other module')} changed: {min(changed) or 'the network'}"
            )
        stated = getattr(model, "num_classes", classes)
        if isinstance(stated, int) and stated != classes:
            raise CheckFailed(f"num_classes is {stated} after its heads were built for {classes}")
    return f"{counted(len(heads), 'head')} for {', '.join(map(str, CLASSES))} classes"


def outputs_have_the_classes(subject: Subject) -> str:
    """Run the network at its own size in both modes, and validate the shapes of its outputs."""
    backbone = subject.backbone
    auxiliary = [head for head in backbone.heads[1:] if head.output is not None]
    before = head_classes(subject.published.get_submodule(subject.head_paths[0]))
    for classes in CLASSES:
        model = subject.with_classes(classes)
        for training in (True, False):
            returned = forward_zeros(model, backbone.preprocess, training)
            outputs = subject.task.read_output(returned, backbone.heads, training, before)
            expected = len(auxiliary) if training else 0
            shapes = [
                tuple(tensor.shape[:2])
                for tensor in (outputs.main, *(extra for extra, _ in outputs.auxiliary))
            ]
            mode = "train mode" if training else "eval mode"
            if not training and (awake := _in_train_mode(model)):
                message = f"{awake[0]} is in train mode after eval() and a forward pass"
                raise CheckFailed(f"{message}: train() or forward of a module sets its mode")
            if (count := len(outputs.auxiliary)) != expected:
                raise CheckFailed(f"{count} auxiliary outputs in {mode}, not {expected}")
            if set(shapes) != {(2, classes)}:
                message = f"outputs of 2 images and {classes} classes are {shapes} in {mode}"
                raise CheckFailed(message)
    return f"1 tensor in eval mode, {1 + len(auxiliary)} in train mode"


def _in_train_mode(model: nn.Module) -> list[str]:
    """Return the names of modules in training mode, that of the network last."""
    awake = [name for name, module in model.named_modules() if name and module.training]
    return awake + ["the network"] * model.training


def wrong_auxiliary_width_is_an_error(subject: Subject) -> str:
    """Replace the main head only, and read the outputs."""
    backbone = subject.backbone
    if not any(head.role == "aux" for head in backbone.heads):
        raise NotApplicable("it has no auxiliary head")
    widths = {head_classes(subject.published.get_submodule(path)) for path in subject.head_paths}
    classes = next(number for number in count(CLASSES[-1]) if number not in widths)
    model = subject.with_classes(classes, heads=1)
    returned = forward_zeros(model, backbone.preprocess, training=True)
    try:
        subject.task.read_output(returned, backbone.heads, training=True)
    except BrokenBackbone as error:
        return error.message
    message = f"the main head has {classes} classes, the auxiliary heads have not"
    raise CheckFailed(f"{message}, but no error is raised")


def _measured_width(subject: Subject, path: str) -> int:
    """Return the number of features in the input of a head in a forward pass."""
    model = subject.published
    model.eval()
    leaf = model.get_submodule(path)
    shape, _ = shapes_at(model, path, subject.backbone.preprocess)
    return shape[1] if isinstance(leaf, nn.Conv2d) else shape[-1]


def width_is_the_declared_one(subject: Subject) -> str:
    """Compare the input width of each head with its layer and its description."""
    widths = []
    for head, path in zip(subject.backbone.heads, subject.head_paths, strict=True):
        leaf = subject.published.get_submodule(path)
        own, declared = head_width(leaf), head.in_features
        # Auxiliary heads do not run in eval mode, so only their layers are compared.
        width = own if head.role == "aux" else _measured_width(subject, path)
        if own not in (None, width):
            raise CheckFailed(f"the input of {head.path} has {width} features, its layer {own}")
        if declared not in (None, width):
            raise CheckFailed(f"{head.path} has {width} input features, {declared} are declared")
        widths.append(f"{head.path} {width}" + ("" if declared else " (not declared)"))
    return ", ".join(widths)


def _try_size(subject: Subject, size: int) -> None:
    """Build the network for another image size, as `--input-size` does.

    Raises:
        UsageError: the network does not accept the size.
    """
    backbone, options = subject.backbone, BuildOptions(input_size=size)
    try:
        with torch.device(subject.build_device):
            model = resolve_and_build(backbone, "none", 10, options=options)
    except BrokenBackbone as error:
        raise options_refused(backbone, options, error) from error
    check_size(model, backbone, size)


def sizes_are_told(subject: Subject) -> str:
    """Build for an image size that is probably invalid, then for a size of the hint."""
    backbone = subject.backbone
    own = backbone.preprocess
    if backbone.fixed_size and backbone.image_size is None:
        wrong = own.height + 32
    else:
        wrong = max((backbone.min_size or 2) - 1, 1)
    try:
        _try_size(subject, wrong)
    except UsageError as raised:
        error = raised
    else:
        return f"it accepts {wrong}x{wrong} too"
    sizes = [int(number) for number in re.findall(r"\d+", error.hint or "")]
    if not any(_accepts(subject, size) for size in sizes):
        raise CheckFailed(f"the error for {wrong} px names no size that it accepts: {error}")
    return str(error)


def _accepts(subject: Subject, size: int) -> bool:
    if size in (subject.backbone.preprocess.height, subject.backbone.preprocess.width):
        return True
    try:
        _try_size(subject, size)
    except UsageError:
        return False
    return True
