"""A backbone, its heads, and families of backbones, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, did_you_mean
from zoo.records import FrozenDict, validate, with_fields
from zoo.spec.preprocess import Preprocess
from zoo.spec.targets import check_target, object_given, path_steps, resolve_target
from zoo.spec.weight_files import LocalWeights
from zoo.spec.weights import Weights

if TYPE_CHECKING:
    from enum import Enum
    from os import PathLike

    from torch import nn

IMAGE_CLASSIFICATION = "image-classification"
ALIAS = r"([A-Za-z0-9][\w.\-]*/)?[A-Za-z0-9][\w.\-]*"
ROLES = ("main", "aux", "distill")


@dataclass(frozen=True, slots=True)
class Head:
    """A module whose output width depends on the classes.

    Args:
        path: of the module: `fc`, `classifier[6]`, `AuxLogits.fc`.
        role: `main`, `aux` (a loss of its own in training, unused in evaluation) or `distill`.
        loss_weight: of an auxiliary head's loss; the main loss has weight 1.
        output: field name or index in the network's training output; None where it is one tensor.
        in_features: width of its input; None where it is unknown without building.
    """

    path: str
    role: str = "main"
    loss_weight: float = 1.0
    output: str | int | None = None
    in_features: int | None = None

    def __post_init__(self) -> None:
        validate(self)
        path_steps(self.path)
        if self.role not in ROLES:
            hint = did_you_mean(self.role, ROLES, f"one of {', '.join(ROLES)}")
            raise UsageError(f"head {self.path!r} has the unknown role {self.role!r}", hint)

    @property
    def module_path(self) -> str:
        """The path as torch writes it: `classifier.6`."""
        return ".".join(path_steps(self.path))


@dataclass(frozen=True)
class Backbone:
    """A named architecture, with its builder and its published weights.

    Args:
        name: unique within its source.
        builder: `"package.module:function"`, called as `build(weights=None, **kwargs)`.
        heads: every head, the main one first; empty for an encoder without heads.
        preprocess: the default; weights may have their own.
        weights: published ones, the default first.
        kwargs: builder arguments.
        task: name of a registered `zoo.Task`.
        params: number of parameters of the published network; None where unknown.
        license: of the default weights, where they have none of their own; by default theirs.
        min_size: the smallest supported side in pixels; None where unknown.
        fixed_size: the built network supports the size of its preprocess only.
        image_size: the builder argument for the size of a network of fixed size; None without one.
        in_chans: the builder argument for the number of input channels; None where it is fixed.
        refuse: the reason why zoo cannot fine-tune it; None where it can.
        aliases: its former names, bare or as ids, by which registry and model files still name it.
        exceptions: checks of `zoo.testing` that it is expected to fail, by name, with reasons.
        source: the plugin's entry-point name; set by the registry.
        plugin: name of the plugin that builds it; set by the registry.
        origin: description of what registered it; set by the registry.
        extends: the base of a derived backbone; set by the registry.
        local: where copies of published weights may be; set by the registry.
        selected: tag of the weights that the requested name selects; set by the registry.
    """

    name: str
    builder: str
    heads: tuple[Head, ...]
    preprocess: Preprocess
    weights: tuple[Weights, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=FrozenDict)
    task: str = IMAGE_CLASSIFICATION
    params: int | None = None
    license: str | None = None
    min_size: int | None = None
    fixed_size: bool = False
    image_size: str | None = None
    in_chans: str | None = None
    refuse: str | None = None
    exceptions: Mapping[str, str] = field(default_factory=FrozenDict)
    aliases: tuple[str, ...] = ()
    source: str = ""
    plugin: str = ""
    origin: str = ""
    extends: Backbone | None = None
    local: LocalWeights = field(default=LocalWeights(), compare=False, repr=False)
    selected: str | None = None

    def __post_init__(self) -> None:
        if callable(self.builder):
            raise object_given(self.builder, f"backbone {self.name!r} has the builder")
        validate(self)
        if odd := [alias for alias in self.aliases if not re.fullmatch(ALIAS, alias)]:
            hint = "write a former name, or an id like leaf/leafnet"
            raise UsageError(f"backbone {self.name!r} has the alias {odd[0]!r}", hint)
        if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", self.name):
            raise UsageError(f"{self.name!r} is not a backbone name", "letters, digits, _ . - only")
        check_target(self.builder, f"backbone {self.name!r} has the builder")
        if not self.heads and self.refuse is None:
            raise UsageError(f"backbone {self.name!r} names no head", "or state why in refuse=")
        if self.heads and self.heads[0].role != "main":
            message = f"the first head of backbone {self.name!r} has the role {self.heads[0].role}"
            raise UsageError(message, "list the main head first")
        tags = [weights.tag for weights in self.weights]
        if len(set(tags)) != len(tags):
            raise UsageError(f"backbone {self.name!r} publishes two weights of one tag")
        if self.weights and self.license != self.weights[0].license:
            self._sync_license()

    def _sync_license(self) -> None:
        """Give the backbone and its default weights one licence; the weights' own wins."""
        first, *others = self.weights
        if first.license is None:
            first = replace(first, license=self.license)
            object.__setattr__(self, "weights", (first, *others))
        object.__setattr__(self, "license", first.license)

    def __hash__(self) -> int:
        return hash((self.source, self.name))

    @property
    def id(self) -> str:
        """`source/name`, unique in the registry."""
        return f"{self.source}/{self.name}" if self.source else self.name

    def is_named(self, id: str) -> bool:
        """Whether an id is that of this backbone, or was."""
        former = (alias if "/" in alias else f"{self.source}/{alias}" for alias in self.aliases)
        return id in (self.id, *former)

    @property
    def pretrained(self) -> bool:
        """Whether it has published weights."""
        return bool(self.weights)

    @property
    def published(self) -> Backbone:
        """The backbone that a plugin registered: itself, or its base's."""
        return self.extends.published if self.extends else self

    def published_as(self, name: str) -> Weights | None:
        """Return the published weights of a name; None where none have it.

        Args:
            name: their tag; a name that their publisher gives them; the name or id of this backbone
                with the tag, `resnet18.a1_in1k`; or their repository, `hf_hub:timm/...`.
        """
        for weights in self.weights:
            if name in (weights.tag, *weights.names):
                return weights
        address = name.removeprefix("hf_hub:").removeprefix("hf-hub:")
        for weights in self.weights:
            repository = (weights.hub or "").partition(":")[0] or None
            if address in (f"{self.name}.{weights.tag}", f"{self.id}.{weights.tag}", repository):
                return weights
        return None

    def find_weights(self, name: str) -> Weights:
        """Return the published weights of a tag, or of another name as in `published_as`.

        Raises:
            UsageError: there are none; names the nearest.
        """
        if (weights := self.published_as(name)) is not None:
            return weights
        tags = [weights.tag for weights in self.weights]
        known = [*tags, *(other for weights in self.weights for other in weights.names)]
        hint = f"published: {', '.join(tags)}" if tags else "it publishes none; use none or a file"
        message = f"{self.id} publishes no weights tagged {name!r}"
        raise UsageError(message, did_you_mean(name, known, hint))

    def with_selected(self, weights: Weights) -> Backbone:
        """Return a copy whose default weights are these of the published ones."""
        others = tuple(each for each in self.weights if each is not weights)
        same_width = weights.num_classes == self.weights[0].num_classes
        return replace(
            self,
            weights=(weights, *others),
            license=weights.license,
            params=self.params if same_width else None,
            selected=weights.tag,
        )

    def preprocess_for(self, weights: Weights | None) -> Preprocess:
        """Return the preprocess of these weights, or the backbone's."""
        return (weights.preprocess if weights else None) or self.preprocess

    def build(
        self,
        classes: int | Sequence[str] | None = None,
        weights: str | PathLike[str] | Enum | None = None,
        *,
        head: str | None = None,
        head_at: str | None = None,
        input_size: int | None = None,
        in_chans: int | None = None,
    ) -> nn.Module:
        """Build the network on the CPU in training mode, heads replaced, nothing frozen.

        Args:
            classes: width of the new heads, or class names; None for the published heads.
            weights: None or `"none"` for random ones, `"auto"`, a published tag, or a file.
            head: the new main head: `"linear"`, or `"mlp:4096,dropout=0.5"`.
            head_at: path of the module that it replaces; None for the leaf.
            input_size: height and width of the input in pixels; None for the default.
            in_chans: number of input channels; None for three.

        Raises:
            UsageError: its library does not support that size or number of channels.
            WeightsError: the weights are unreachable or refused.
            BrokenBackbone: it does not build, or not as its adapter describes.
        """
        # By name, as an adapter names its builder: an import would point to a higher layer.
        build = resolve_target("zoo.models.build:build_backbone", "zoo")
        changes = {"head": head, "head_at": head_at, "input_size": input_size, "in_chans": in_chans}
        return build(self, classes, weights, **changes)  # type: ignore[no-any-return]

    def with_source(self, source: str, origin: str) -> Backbone:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, plugin=source, origin=origin)


@dataclass(frozen=True)
class Family:
    """Many backbones described by a library, enumerated once per installed version.

    Args:
        distribution: the installed distribution, whose version is part of the cache key.
        catalogue: `"package.module:function"` that yields `Backbone`s; runs once in a subprocess.
        source: the plugin's entry-point name; set by the registry.
    """

    distribution: str
    catalogue: str
    source: str = ""

    def __post_init__(self) -> None:
        validate(self)
        check_target(self.catalogue, f"the family of {self.distribution} has the catalogue")

    def with_source(self, source: str, origin: str) -> Family:
        """Return a copy with its owner set."""
        return with_fields(self, source=source)
