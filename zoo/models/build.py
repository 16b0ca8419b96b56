"""Build a backbone: the network as published, its weights, then its heads.

Networks are built as published and their heads replaced afterwards: all 80 of torchvision's
builders refuse pretrained weights with another number of classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.errors import BrokenBackbone, UsageError, WeightsError, join_lines
from zoo.modelfile import KEY, ModelCard
from zoo.models.base_weights import BaseWeights, check_card, resolve_base
from zoo.models.build_options import NO_OPTIONS, BuildOptions, options_refused
from zoo.models.builder import build_network, check_trainable
from zoo.models.head_factory import check_widths
from zoo.models.heads import head_classes, replace_heads, resolve_head
from zoo.models.input_size import check_size
from zoo.models.license_notice import warn_license_once
from zoo.models.own_weights import load_own
from zoo.models.plugin_errors import naming
from zoo.models.provenance import Provenance, record_provenance
from zoo.models.state_dict import load_state
from zoo.models.state_fit import check_values, compare_state, describe_casts, without_prefix
from zoo.models.weights import fetch
from zoo.options import HeadSpec
from zoo.options.arguments import check_arguments, names_arguments
from zoo.options.given import NameOrPath
from zoo.options.head_spec import PLAIN
from zoo.options.readers import class_names, weights_text
from zoo.seeding import seed_torch
from zoo.spec import Backbone, Weights
from zoo.tensorfile import TensorFile

log = logging.getLogger("zoo")


def load_published(
    model: nn.Module, backbone: Backbone, base: BaseWeights, file: TensorFile
) -> BaseWeights:
    """Load published weights into a network; return their record.

    Raises:
        WeightsError: they do not fit the network.
    """
    weights = base.published
    assert weights is not None
    tensors, prefix = without_prefix(file.tensors, model.state_dict())
    _match_classes(model, backbone, weights, tensors)
    state = model.state_dict()
    source = f"weights {weights.tag!r} of {backbone.id}"
    check_values(tensors, state, f"{weights.file or weights.url or weights.hub}, of {source},")
    misfit = compare_state(tensors, state)
    untrained: tuple[str, ...] = ()
    if weights.features_only and backbone.heads:
        # Published without their classifier; its layers stay randomly initialised.
        head = resolve_head(model, backbone.heads[0].path)
        top = f"{head.partition('.')[0]}."
        layers = {name.rpartition(".")[0] for name in misfit.missing if name.startswith(top)}
        untrained = tuple(sorted(layers - {head}))
        missing = tuple(name for name in misfit.missing if not name.startswith(top))
        misfit = replace(misfit, missing=missing)
    if misfit:
        _check_stated_classes(model, backbone, weights, tensors)
        raise WeightsError(f"{source} do not fit it: {misfit}")
    try:
        load_state(model, tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{source} do not fit it: {join_lines(str(error))}") from error
    license = weights.license
    if license is None and KEY in file.metadata:
        license = ModelCard.from_json(file.metadata[KEY]).base_license
    sha256 = file.sha256
    return replace(
        base,
        sha256=sha256,
        license=license,
        untrained=untrained,
        prefix=prefix,
        casts=describe_casts(tensors, state),
    )


def _match_classes(
    model: nn.Module, backbone: Backbone, weights: Weights, tensors: Mapping[str, Tensor]
) -> None:
    """Replace the heads where published weights have another number of classes than the network."""
    if not backbone.heads or not weights.num_classes:
        return
    leaf = resolve_head(model, backbone.heads[0].path)
    weight = tensors.get(f"{leaf}.weight")
    built = head_classes(model.get_submodule(leaf))
    if weight is not None and built != weights.num_classes == len(weight):
        preprocess = backbone.preprocess_for(weights)
        replace_heads(model, backbone.heads, weights.num_classes, preprocess)


def _check_stated_classes(
    model: nn.Module, backbone: Backbone, weights: Weights, tensors: Mapping[str, Tensor]
) -> None:
    """Check the number of classes that an adapter states for weights that do not fit.

    Raises:
        BrokenBackbone: their main head has another.
    """
    if not backbone.heads or not weights.num_classes:
        return
    leaf = resolve_head(model, backbone.heads[0].path)
    weight = tensors.get(f"{leaf}.weight")
    if weight is None or len(weight) == weights.num_classes:
        return
    if weights in backbone.published.weights and not compare_state(
        tensors, model.state_dict(), without=[leaf]
    ):
        message = f"weights {weights.tag!r} of {backbone.id} have {len(weight)} outputs"
        remedy = "correct num_classes where the plugin registers them"
        raise BrokenBackbone(f"{message}, and state num_classes={weights.num_classes}", remedy)


def build(
    backbone: Backbone,
    base: BaseWeights,
    classes: int | None = None,
    seed: int | None = None,
    head: HeadSpec = PLAIN,
    dry_run: bool = False,
    names: Sequence[str] = (),
) -> nn.Module:
    """Build a network, load its weights, replace its heads, and record its provenance.

    Args:
        backbone: to build, with the build options applied.
        base: starting weights, from `resolve_base`; `provenance_of(model).base` is the record after
            loading.
        classes: width of the new heads; None preserves the published ones.
        seed: of random weights and new heads; None uses torch's generator as it is.
        head: replaces the main head.
        dry_run: neither download weights nor write to the cache, and warn of no licence.
        names: of the classes; rows of a model file's heads are matched to them.

    Raises:
        UsageError: the head is not possible, or the backbone cannot be fine-tuned and `classes` is
            given.
        NotLocal: `dry_run`, and published weights must be downloaded or converted first.
        WeightsError: the weights cannot be reached or are refused.
        BrokenBackbone: it does not build, or does not match its adapter.
    """
    if classes is not None:
        check_trainable(backbone)
    described = BuildOptions(head=head).with_head(backbone)
    published = base.published if base.kind == "published" else None
    # Before anything is built for weights that are not there.
    file = fetch(backbone, published, local=True) if published and dry_run else None
    seed_torch(seed)
    model = build_network(backbone, base.kwargs)
    if published:
        base = load_published(model, backbone, base, file or fetch(backbone, published))
    # Again: converting weights for the first time may have advanced the generator.
    seed_torch(seed)
    from_file = base.kind == "file"
    previous = None
    with naming(backbone.id):
        heads_fit = from_file and head.plain and _classes_of(model, backbone) == [classes]
        if classes is not None and not heads_fit:
            previous = _classes_of(model, backbone)[-1]
            replace_heads(model, described.heads, classes, base.preprocess, head)
        else:
            described = backbone
        if from_file:  # last, since the file may have tensors for the new heads
            base = load_own(model, described, base, names if len(names) == classes else ())
    record_provenance(model, Provenance(described, base, head, previous))
    subject = f"{base.path} is trained from weights"
    if base.kind == "published":
        subject = f"weights {base.tag} of {backbone.id} are"
    if not dry_run:
        warn_license_once(base.license, subject)
    return model


def _classes_of(model: nn.Module, backbone: Backbone) -> Sequence[int | None]:
    leaves = [resolve_head(model, head.path) for head in backbone.heads]
    return sorted({head_classes(model.get_submodule(leaf)) or 0 for leaf in leaves})


def resolve_and_build(
    backbone: Backbone,
    choice: str | None,
    classes: int | None = None,
    seed: int | None = None,
    options: BuildOptions = NO_OPTIONS,
    names: Sequence[str] = (),
) -> nn.Module:
    """Apply build options, resolve a choice of weights, and build.

    Raises:
        UsageError, WeightsError, BrokenBackbone: as `resolve_base` and `build`.
    """
    if classes is not None:
        check_trainable(backbone)
    described = options.apply(backbone)
    base = resolve_base(described, choice, options)
    return build(described, base, classes, seed, options.head, names=names)


@names_arguments
def build_backbone(
    backbone: Backbone,
    classes: int | Sequence[str] | None,
    weights: NameOrPath | None,
    *,
    head: str | None,
    head_at: str | None,
    input_size: int | None,
    in_chans: int | None,
) -> nn.Module:
    """Build a network; implements `Backbone.build`.

    Raises:
        UsageError, WeightsError, BrokenBackbone, BrokenPlugin: as `resolve_and_build`.
    """
    if (head or head_at) and classes is None:
        raise UsageError("a new head needs classes", "give classes=N")
    check_arguments(input_size=input_size, in_chans=in_chans)
    count, names = _counted(classes)
    options = BuildOptions(input_size, in_chans, HeadSpec.parse(head, head_at))
    choice = None if weights is None else weights_text(weights)
    try:
        model = resolve_and_build(backbone, choice, count, options=options, names=names)
    except BrokenBackbone as error:
        raise options_refused(backbone, options, error) from error
    if input_size is not None:
        check_size(model, backbone, input_size)
    return model


def _counted(classes: Any) -> tuple[int | None, tuple[str, ...]]:
    """Return the number of classes, and their names where they are named.

    Raises:
        UsageError: it is neither a number nor a list of unique names.
    """
    if classes is None:
        return None, ()
    if isinstance(classes, Iterable) and not isinstance(classes, str):
        names = class_names(classes)
        classes = len(names)
    elif isinstance(classes, Integral) and not isinstance(classes, bool):
        names, classes = (), int(classes)
    else:
        raise UsageError(f"classes is {classes!r}", "give a number, or a list of names")
    if classes < 1:
        raise UsageError(f"a head cannot end in {classes} classes", "1 is the least")
    return classes, names


def build_trained(
    backbone: Backbone, card: ModelCard, outputs: int, tensors: Mapping[str, Tensor], path: Path
) -> nn.Module:
    """Build the network of a model file, and record its provenance.

    Args:
        backbone: as its plugin describes it.
        card: metadata of the model file.
        outputs: of each head.
        tensors: of the model file.
        path: of the model file, for messages.

    Raises:
        WeightsError: the file does not fit the backbone.
        BrokenBackbone: the backbone does not build.
    """
    check_card(card, backbone, path)
    model = build_network(backbone, card.kwargs)
    head = HeadSpec.from_dict(card.new_head)
    try:
        check_widths(tensors, card.heads, head)
        replace_heads(model, card.heads, outputs, card.preprocess, head)
    except UsageError as error:
        raise WeightsError(f"{path} does not fit {card.backbone}: {error}") from error
    state = model.state_dict()
    if misfit := compare_state(tensors, state, exact=True):
        raise WeightsError(f"{path} does not fit {card.backbone}: {misfit}")
    check_values(tensors, state, path)
    if casts := describe_casts(tensors, state):
        log.warning("%s: %s", path, casts)
    load_state(model, tensors, strict=False)
    base = BaseWeights(
        kind=card.base.get("kind", "none"),
        tag=card.base.get("tag"),
        sha256=card.base.get("sha256"),
        kwargs=card.kwargs,
        preprocess=card.preprocess,
        preprocess_reason="of the model file",
        license=card.base_license,
    )
    record_provenance(model, Provenance(replace(backbone, heads=card.heads), base, head))
    warn_license_once(card.base_license, f"{path} is trained from weights")
    return model
