"""Resolve the weights that a network starts from, once and without a download."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from zoo.errors import UsageError, WeightsError
from zoo.modelfile import ModelCard
from zoo.models.build_options import NO_OPTIONS, BuildOptions
from zoo.models.builder import build_on_meta, builder_defaults
from zoo.models.head_factory import HeadSpec
from zoo.models.head_rows import HeadRows
from zoo.models.heads import resolve_head
from zoo.models.own_file import OwnFile, locate_weights
from zoo.models.weight_sources import Location, local_weights, locate
from zoo.models.weights import check_reachable
from zoo.spec import Backbone, Preprocess, Weights
from zoo.tensorfile import TensorFile

log = logging.getLogger("zoo")

RECORDED = ("kind", "tag", "sha256", "license", "left_out", "untrained")


@dataclass(frozen=True, kw_only=True)
class BaseWeights:
    """The weights that a network starts from, with the arguments and preprocess they require.

    `resolve_base` sets all but `sha256`, `left_out`, `prefix`, `casts`, `new_heads` and `rows`,
    which are known once the tensors are loaded. Loading also updates `license` and `untrained`, and
    releases `file`.

    Args:
        kind: `published`, `file` or `none`.
        tag: of published weights.
        published: their description; None for other kinds, and when read from a model file.
        path: of the user's file.
        reason: why these weights.
        kwargs: builder arguments.
        preprocess: from image to input.
        preprocess_reason: origin of the preprocess.
        license: of the weights; None where it is not stated.
        availability: of published weights, the kind of a `zoo.models.weight_sources.Location`.
        untrained: layers below the head that the weights do not cover.
        sha256: digest of the published file, or of the user's.
        left_out: entries of the user's file that do not fit the heads.
        prefix: taken off every name of the file; empty for none.
        casts: types of numbers that are converted to the network's own, as text; empty for none.
        new_heads: module paths of heads that the user's file does not fit.
        classes: names of a model file's outputs, in their order; empty where they are unknown.
        rows: of a model file's heads, matched by name to the data's; None where they are not.
        file: content of the user's file until it is loaded.
    """

    kind: str
    tag: str | None = None
    published: Weights | None = None
    path: Path | None = None
    reason: str = "as given"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Preprocess
    preprocess_reason: str = "the backbone's own"
    license: str | None = None
    availability: str | None = None
    untrained: tuple[str, ...] = ()
    sha256: str | None = None
    left_out: tuple[str, ...] = ()
    prefix: str = ""
    casts: str = ""
    new_heads: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    rows: HeadRows | None = None
    file: TensorFile | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """`none`, the tag of published weights, or the name of a file."""
        return self.tag or (self.path.name if self.path else "none")

    def with_ranges(self, ranges: tuple[tuple[str, float, float], ...]) -> BaseWeights:
        """Return the weights with the ranges of values of a data set in their preprocess."""
        if ranges == self.preprocess.ranges:
            return self
        reason = f"{self.preprocess_reason}; ranges of values of the data"
        preprocess = replace(self.preprocess, ranges=ranges)
        return replace(self, preprocess=preprocess, preprocess_reason=reason)

    @property
    def random(self) -> bool:
        """Whether every layer starts from random values."""
        return self.kind == "none"

    @property
    def license_reason(self) -> str:
        """Origin of the licence, or why there is none."""
        if self.random:
            return "not applicable: randomly initialised"
        return "of these weights" if self.license else "none is stated; ask their publisher"

    @property
    def warm_head(self) -> bool:
        """Whether the main head starts from values of the user's file."""
        return self.rows is not None or (self.kind == "file" and not self.new_heads)

    @property
    def details(self) -> list[str]:
        """What of the weights was changed or not used."""
        details = [f"the prefix {self.prefix!r} of its names is taken off"] if self.prefix else []
        details += [self.casts] if self.casts else []
        if self.rows is not None:
            details.append(str(self.rows))
        elif self.warm_head and not self.classes:
            details.append("its outputs have no names; the head is taken in their order")
        if self.left_out:
            details.append(f"skipped, shape differs from the heads: {', '.join(self.left_out)}")
        elif self.new_heads:
            details.append(f"it has no head {', '.join(self.new_heads)}, which is new")
        return details

    def to_dict(self) -> dict[str, Any]:
        """Return the entry `base` of `run.json`."""
        return {name: getattr(self, name) for name in RECORDED}


def resolve_base(
    backbone: Backbone,
    choice: str | None,
    options: BuildOptions = NO_OPTIONS,
    own: OwnFile | None = None,
) -> BaseWeights:
    """Resolve a choice of weights, without a download; only a user's file is opened.

    For `auto`, the host of the default weights is looked up where only others are on this machine.

    A state dict does not determine the builder arguments and preprocess of its network
    (`transform_input`, image size). A model file of zoo does; any other file is assumed to match
    the default weights.

    Args:
        backbone: with the options applied.
        choice: None or `none` for random weights, `auto` for the default ones, a published tag, a
            `.safetensors` file, or a run folder.
        options: the applied options; they take precedence over a model file.
        own: the file of the choice, where it has been read.

    Raises:
        UsageError: no published weights have the tag.
        WeightsError: no weights are published for `auto`, the file cannot be read, or a model file
            is of another backbone.
    """
    if own is None and (given := locate_weights(choice, backbone)) is not None:
        own = OwnFile.open(given)
    if own is not None:
        return _resolve_file(backbone, own, options)
    if choice is None or choice == "none":
        return BaseWeights(
            kind="none",
            kwargs=backbone.kwargs,
            preprocess=backbone.preprocess,
            preprocess_reason=options.reason("the backbone's own"),
        )
    if choice == "auto" and not backbone.weights:
        hint = "give --weights FILE or --weights none"
        raise WeightsError(f"no weights are published for {backbone.id}", hint)
    if choice == "auto":
        weights, location, reason = _resolve_auto(backbone)
    else:
        weights = backbone.find_weights(choice)
        location = locate(backbone, weights)
        reason = f"as given, {location.text}"
    kwargs = {**backbone.kwargs, **weights.kwargs}
    return BaseWeights(
        kind="published",
        tag=weights.tag,
        published=weights,
        reason=reason,
        kwargs=kwargs,
        preprocess=backbone.preprocess_for(weights),
        preprocess_reason=options.reason("of these weights"),
        license=weights.license,
        availability=location.kind,
        untrained=_expected_untrained(backbone, weights, kwargs),
    )


def _resolve_auto(backbone: Backbone) -> tuple[Weights, Location, str]:
    """Return the default weights, where they come from, and why these.

    Where they are not on this machine and cannot be downloaded, the first others that are on it
    replace them, if they have the same outputs.
    """
    default = backbone.weights[0]
    weights, location = local_weights(backbone) or (default, locate(backbone, default))
    if weights is not default and (problem := _unreachable(backbone, default)):
        problem = f"{default.tag}, the default, cannot be downloaded ({problem})"
        log.warning(
            "%s: weights %s; using %s, %s", backbone.id, problem, weights.tag, location.text
        )
        return weights, location, f"auto: {location.text}; {problem}"
    why = "named with the backbone" if backbone.selected else "the default"
    location = location if weights is default else locate(backbone, default)
    return default, location, f"auto: {why}, {location.text}"


def _unreachable(backbone: Backbone, weights: Weights) -> str:
    """Return why weights cannot be downloaded, as far as a lookup of their host shows, or ''."""
    try:
        check_reachable(backbone, weights)
    except WeightsError as error:
        return error.message
    return ""


def _resolve_file(backbone: Backbone, own: OwnFile, options: BuildOptions) -> BaseWeights:
    path, card, file = own.path, own.card, own.content
    if card is not None:
        own.check_backbone(backbone)
        check_card(card, backbone, path)
        return BaseWeights(
            kind="file",
            path=path,
            kwargs={**card.kwargs, **options.kwargs_over(card.preprocess, backbone)},
            preprocess=options.preprocess(card.preprocess),
            preprocess_reason=options.reason("of the model file"),
            license=card.base_license,
            classes=card.classes,
            file=file,
        )
    like = backbone.weights[0] if backbone.weights else None
    reason = f"of {like.tag}, which the file is assumed to match" if like else "the backbone's own"
    return BaseWeights(
        kind="file",
        path=path,
        kwargs={**backbone.kwargs, **(like.kwargs if like else {})},
        preprocess=backbone.preprocess_for(like),
        preprocess_reason=options.reason(reason),
        file=file,
    )


def _expected_untrained(
    backbone: Backbone, weights: Weights, kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the layers around the head that weights without a head are expected to lack.

    These are the classifier's. Normalisation before a head belongs to the features, and is
    published with them.
    """
    if not (weights.features_only and backbone.heads):
        return ()
    head = backbone.heads[0].module_path
    top, _, below = head.partition(".")
    if not below:
        return ()  # the head is a top-level module
    model = build_on_meta(backbone, kwargs)
    head = resolve_head(model, head)
    layers = model.get_submodule(top).named_modules(prefix=top)
    classifiers = (nn.Linear, nn.Conv2d)
    return tuple(
        sorted(name for name, layer in layers if isinstance(layer, classifiers) and name != head)
    )


def check_card(card: ModelCard, backbone: Backbone, source: str | Path) -> None:
    """Check the builder arguments and heads of a model file against those of its backbone.

    Builder arguments reach library code that may open files or connections, so an untrusted file
    must not choose them. One at the builder's own default is no choice: an earlier version of the
    adapter may have stated it.

    Raises:
        WeightsError: the backbone has no such argument or head.
    """
    allowed = [backbone.kwargs, *(weights.kwargs for weights in backbone.weights)]
    allowed.append({backbone.image_size: card.preprocess.height} if backbone.image_size else {})
    allowed.append({backbone.in_chans: card.preprocess.channels} if backbone.in_chans else {})
    if not card.kwargs.keys() <= backbone.kwargs.keys():
        allowed.append(builder_defaults(backbone))
    for key, value in card.kwargs.items():
        if not any(
            key in kwargs and _as_json(kwargs[key]) == _as_json(value) for kwargs in allowed
        ):
            message = f"{source} requires {backbone.id} built with {key}={value!r}"
            raise WeightsError(message, "its adapter has no such argument; the file is refused")
    try:
        with_head = BuildOptions(head=HeadSpec.from_dict(card.new_head)).with_head(backbone)
    except (UsageError, TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{source} has a damaged description: its head: {error}") from error
    paths = [head.module_path for head in with_head.heads]
    if [head.module_path for head in card.heads] != paths:
        raise WeightsError(f"{source} names other heads than {backbone.id}: {', '.join(paths)}")


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))
