"""Promises about how a network is made: its heads, outputs and sizes, for 1, 2 and 10 classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count

import torch
from torch import nn

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.build import resolve_and_build
from zoo.models.build_options import BuildOptions, options_refused
from zoo.models.heads import (
    find_module,
    head_classes,
    head_width,
    is_leaf,
    resolve_head,
    shapes_at,
)
from zoo.models.input_size import check_size
from zoo.spec import Head, Weights
from zoo.testing.findings import Broken, NotApplicable
from zoo.testing.subject import Subject, run

CLASSES = (1, 2, 10)


def builds_offline(subject: Subject) -> str:
    """Build the network while connections are refused."""
    model = subject.published
    if subject.asked:
        raise Broken(f"its builder asks the network: {subject.asked[0]}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stated = subject.backbone.params
    if stated is not None and stated != parameters:
        raise Broken(f"it has {parameters:,} parameters, and {stated:,} are stated")
    return f"{type(model).__name__} with {parameters:,} parameters"


def refuses_without_head(subject: Subject) -> str:
    """Ask for classes of a network that has no head to replace."""
    if not subject.backbone.refuse:
        raise NotApplicable("it can be fine-tuned")
    try:
        resolve_and_build(subject.backbone, "none", 10)
    except UsageError as error:
        if subject.backbone.refuse in error.message:
            return error.message
        raise Broken(f"it is refused without the reason: {error.message}") from error
    raise Broken("it has no head, and was built for 10 classes")


def heads_resolve(subject: Subject) -> str:
    """Look every head up in the network."""
    model = subject.published
    for head in subject.backbone.heads:
        leaf = resolve_head(model, head.path)
        if leaf != head.module_path:
            raise Broken(f"{head.path} is no layer that ends in the classes; {leaf} in it is")
    kinds = [
        f"{head.path} {type(find_module(model, head.path)).__name__}"
        for head in subject.backbone.heads
    ]
    return ", ".join(kinds)


def weights_fit(subject: Subject) -> str:
    """Build the network as each of its published weights needs it, and look at its heads."""
    backbone = subject.backbone
    if not backbone.weights:
        raise NotApplicable("no weights are published")
    distinct: dict[tuple[object, ...], Weights] = {}
    for weights in backbone.weights:
        size = backbone.preprocess_for(weights).size
        distinct.setdefault((weights.num_classes, size), weights)
    for weights in distinct.values():
        model = subject.build({**backbone.kwargs, **weights.kwargs})
        for head in backbone.heads:
            leaf = find_module(model, head.path)
            if not is_leaf(leaf):
                raise Broken(f"built for {weights.tag}, {head.path} is a {type(leaf).__name__}")
    return f"{len(distinct)} forms of the network for {len(backbone.weights)} weights"


def _other_parts(model: nn.Module, heads: Sequence[str]) -> dict[str, str]:
    """Describe every module that is no head."""
    return {
        name: f"{type(part).__name__} {[tuple(p.shape) for p in part.parameters(recurse=False)]}"
        for name, part in model.named_modules()
        if name not in heads
    }


def _unlike(old: nn.Module, new: nn.Module, classes: int) -> str | None:
    """Say how a new head is not like the old one; None where it is."""
    kind = nn.Linear if isinstance(old, nn.Identity) else type(old)
    if not isinstance(new, nn.Conv2d if isinstance(old, nn.Conv2d) else nn.Linear):
        return f"a {kind.__name__} became a {type(new).__name__}"
    if head_classes(new) != classes:
        return f"it ends in {head_classes(new)}, not {classes}"
    if head_width(old) not in (None, head_width(new)):
        return f"it reads {head_width(new)}, and read {head_width(old)}"
    if not isinstance(old, nn.Identity) and (old.bias is None) != (new.bias is None):
        return "its bias was not kept as it was"
    like = next(old.parameters(), None)
    weight = next(new.parameters())
    if like is not None and (like.dtype, like.device) != (weight.dtype, weight.device):
        return f"it is {weight.dtype} on {weight.device}, and was {like.dtype} on {like.device}"
    return None if new.training == old.training else "its mode was not kept"


def replaced_like_for_like(subject: Subject) -> str:
    """Replace the heads, and compare all that is there with all that was."""
    heads = [head.module_path for head in subject.backbone.heads]
    before = subject.published
    parts = _other_parts(before, heads)
    for classes in CLASSES:
        model = subject.cut(classes)
        for path in heads:
            if said := _unlike(before.get_submodule(path), model.get_submodule(path), classes):
                raise Broken(f"{path}, {classes} classes: {said}")
        changed = {name for name, part in _other_parts(model, heads).items() if parts[name] != part}
        if changed:
            raise Broken(f"{len(changed)} other modules changed: {min(changed)}")
        stated = getattr(model, "num_classes", classes)
        if isinstance(stated, int) and stated != classes:
            raise Broken(f"its num_classes says {stated} after it was cut for {classes}")
    return f"{len(heads)} heads for {', '.join(map(str, CLASSES))} classes"


def outputs_have_the_classes(subject: Subject) -> str:
    """Run the network at its own size, in training and in use, and look at all that comes out."""
    backbone = subject.backbone
    further = [head for head in backbone.heads[1:] if head.output is not None]
    before = head_classes(subject.published.get_submodule(backbone.heads[0].module_path))
    for classes in CLASSES:
        model = subject.cut(classes)
        for training in (True, False):
            said = run(model, backbone.preprocess, training)
            outputs = subject.task.read_output(said, backbone.heads, training, before)
            expected = len(further) if training else 0
            shapes = [
                tuple(tensor.shape[:2])
                for tensor in (outputs.main, *(extra for extra, _ in outputs.auxiliary))
            ]
            when = "in training" if training else "in use"
            if len(outputs.auxiliary) != expected:
                many = len(outputs.auxiliary)
                raise Broken(f"{when} it gives {many} further outputs, not {expected}")
            if set(shapes) != {(2, classes)}:
                raise Broken(f"{when}, for 2 images and {classes} classes, it gives {shapes}")
    return f"1 tensor in use, {1 + len(further)} in training"


def wrong_auxiliary_width_is_an_error(subject: Subject) -> str:
    """Leave the auxiliary heads as they were, and see whether the loss would notice."""
    backbone = subject.backbone
    if not any(head.role == "aux" for head in backbone.heads):
        raise NotApplicable("it has no auxiliary head")
    published = subject.published
    leaves = [published.get_submodule(resolve_head(published, h.path)) for h in backbone.heads]
    widths = {head_classes(leaf) for leaf in leaves}
    classes = next(number for number in count(CLASSES[-1]) if number not in widths)
    model = subject.cut(classes, heads=1)
    said = run(model, backbone.preprocess, training=True)
    try:
        subject.task.read_output(said, backbone.heads, training=True)
    except BrokenBackbone as error:
        return error.message
    message = f"the main head has {classes} classes, the auxiliary ones have not"
    raise Broken(f"{message}, and nothing is said")


def _measured_width(subject: Subject, head: Head) -> int:
    """Return the width of what arrives at a head as the network runs."""
    model = subject.published.train(False)
    leaf = model.get_submodule(head.module_path)
    arrives, _ = shapes_at(model, head.module_path, subject.backbone.preprocess)
    return arrives[1] if isinstance(leaf, nn.Conv2d) else arrives[-1]


def width_is_the_declared_one(subject: Subject) -> str:
    """Measure what arrives at each head, and compare with the layer and the description."""
    seen = []
    for head in subject.backbone.heads:
        leaf = subject.published.get_submodule(head.module_path)
        reads, stated = head_width(leaf), head.in_features
        # Nothing arrives at an auxiliary one in use, so its layer has the word.
        width = reads if head.role == "aux" else _measured_width(subject, head)
        if reads not in (None, width):
            raise Broken(f"{width} features arrive at {head.path}, which reads {reads}")
        if stated not in (None, width):
            raise Broken(f"{head.path} reads {width} features, and {stated} are declared")
        seen.append(f"{head.path} {width}" + ("" if stated else " (not declared)"))
    return ", ".join(seen)


def _try_size(subject: Subject, size: int) -> None:
    """Ask for another image size, as `--input-size` does.

    Raises:
        UsageError: it is refused.
    """
    backbone, options = subject.backbone, BuildOptions(input_size=size)
    try:
        with torch.device(subject.made_on):
            model = resolve_and_build(backbone, "none", 10, options=options)
    except BrokenBackbone as error:
        raise options_refused(backbone, options, error) from error
    check_size(model, backbone, size)


def sizes_are_told(subject: Subject) -> str:
    """Ask for a size that is likely to be wrong, and for the one that is named instead."""
    backbone = subject.backbone
    own = backbone.preprocess
    if backbone.fixed_size and backbone.image_size is None:
        wrong = own.height + 32
    else:
        wrong = max((backbone.min_size or 2) - 1, 1)
    try:
        _try_size(subject, wrong)
    except UsageError as refused:
        error = refused
    else:
        return f"it takes {wrong}x{wrong} as well"
    named = [int(number) for number in re.findall(r"\d+", error.hint or "")]
    if not any(_takes(subject, number) for number in named):
        raise Broken(f"{wrong} px are refused without a size that it takes: {error}")
    return str(error)


def _takes(subject: Subject, size: int) -> bool:
    if size in (subject.backbone.preprocess.height, subject.backbone.preprocess.width):
        return True
    try:
        _try_size(subject, size)
    except UsageError:
        return False
    return True
