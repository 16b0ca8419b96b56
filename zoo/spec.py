"""What a plugin registers: frozen descriptions, pure data plus `"package.module:function"` strings.

Nothing here imports torch. A description says everything that differs between one backbone and
the next, so that the engine never has to ask for a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import BrokenPlugin, UsageError, did_you_mean, one_line
from zoo.records import FrozenDict, settle

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

Owned = TypeVar("Owned")

IMAGE_CLASSIFICATION = "image-classification"
ROLES = ("main", "aux", "distill")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROPS = ("center", "squash", "border")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def path_steps(path: str) -> tuple[str, ...]:
    """Split a module path into its steps; `classifier[6]` and `classifier.6` are the same.

    Raises:
        UsageError: the path is empty or malformed.
    """
    if not re.fullmatch(r"\w+(\.\w+|\[\d+\])*", path):
        raise UsageError(f"{path!r} is not a module path", "write it like fc or classifier[6]")
    return tuple(re.findall(r"\w+", path))


def resolve_target(target: str, owner: str = "an adapter") -> Any:
    """Import what a `"package.module:attribute"` string names.

    Raises:
        BrokenPlugin: the string is malformed, or nothing can be imported from there.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise BrokenPlugin(f"{owner} names {target!r}", 'write it as "package.module:function"')
    try:
        found: Any = import_module(module_name)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (Exception, SystemExit) as error:  # a module can do anything while it is imported
        message = f"{owner} names {target!r}, which cannot be imported: {one_line(error)}"
        raise BrokenPlugin(message) from error
    return found


@dataclass(frozen=True, slots=True)
class Head:
    """A module that ends in the classes.

    Args:
        path: where it stands in the backbone: `fc`, `classifier[6]`, `AuxLogits.fc`.
        role: `main`, `aux` (a loss of its own in training, no part in evaluation) or `distill`.
        loss_weight: the weight of an auxiliary head's loss; the main loss weighs 1.
        output: where its logits stand in the network's training output, as a field name of a named
            tuple or a position; None where the network gives one tensor.
        in_features: width of what it reads; None where not known without building.
    """

    path: str
    role: str = "main"
    loss_weight: float = 1.0
    output: str | int | None = None
    in_features: int | None = None

    def __post_init__(self) -> None:
        settle(self)
        path_steps(self.path)
        if self.role not in ROLES:
            hint = did_you_mean(self.role, ROLES, f"one of {', '.join(ROLES)}")
            raise UsageError(f"head {self.path!r} has the unknown role {self.role!r}", hint)

    @property
    def module_path(self) -> str:
        """The path as torch writes it: `classifier.6`."""
        return ".".join(path_steps(self.path))


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes the input that weights were trained on.

    Args:
        size: height and width in pixels of what the network sees; one number for a square.
        resize: length in pixels that the shorter side is resized to before the crop; by default
            size / 0.875, the convention of ImageNet evaluation, and the size itself for `squash`.
        crop: `center`; `squash` (both sides resized to the same proportion of the size, whatever
            the picture's own); `border` (the longer side made to fit, the rest filled).
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, always antialiased.
        mean: per channel, for values in 0..1.
        std: per channel, for values in 0..1.
    """

    size: int | tuple[int, int]
    resize: int | None = None
    crop: str = "center"
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        settle(self)
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if len(size) != 2 or min(size) < 1:
            raise UsageError(f"preprocess size {self.size!r} is not one or two positive numbers")
        for name, known in (("crop", CROPS), ("interpolation", INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(value, known, f"one of {', '.join(known)}")
                raise UsageError(f"preprocess {name} {value!r} is unknown", hint)
        if not self.std or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise UsageError("preprocess mean and std must be of one length, and std positive")
        object.__setattr__(self, "size", size)
        if self.resize is None:
            share = 0.875 if self.crop == "center" else 1.0
            object.__setattr__(self, "resize", math.floor(min(size) / share))

    @property
    def height(self) -> int:
        """Rows of pixels that the network sees."""
        assert isinstance(self.size, tuple)
        return self.size[0]

    @property
    def channels(self) -> int:
        """Channels that the network sees: 3 for RGB, 1 for grey."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Columns of pixels that the network sees."""
        assert isinstance(self.size, tuple)
        return self.size[1]


@dataclass(frozen=True, slots=True)
class Weights:
    """One published set of weights; exactly one of `file`, `url` and `hub` says where it is.

    Args:
        tag: what its publisher calls it, unique within the backbone.
        file: `"package:path"`, a file inside an installed package, or an absolute path.
        url: where to download it; a name like `resnet18-f37072fd.pth` carries its own digest.
        hub: a repository on the Hugging Face hub, optionally with `:filename`.
        sha256: digest of the file, whole or its first digits.
        license: an SPDX identifier or the licence's address; None where not stated.
        preprocess: what these weights expect; None for the backbone's own.
        num_classes: width of the published main head; 0 where they come without one.
        classes: the names of the published classes in order, or `"package.module:attribute"`, a
            sequence or a function without arguments that returns one; None where there are none.
        metrics: what the publisher measured, such as `{"imagenet-1k/top1": 0.6976}`.
        kwargs: builder arguments that belong to these weights, beside the backbone's own.
        convert: `"package.module:function"`, called as `convert(path, backbone, weights)` and
            returning the backbone's own state dict; None where the file already holds it.
        features_only: the head holds no trained values, so it cannot predict as it is.
    """

    tag: str
    file: str | None = None
    url: str | None = None
    hub: str | None = None
    sha256: str | None = None
    license: str | None = None
    preprocess: Preprocess | None = None
    num_classes: int = 1000
    classes: str | tuple[str, ...] | None = None
    metrics: Mapping[str, float] = field(default_factory=FrozenDict)
    kwargs: Mapping[str, Any] = field(default_factory=FrozenDict)
    convert: str | None = None
    features_only: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if not self.tag or self.tag in ("auto", "none"):
            raise UsageError(f"weights cannot be tagged {self.tag!r}", "auto and none are taken")
        if sum(place is not None for place in (self.file, self.url, self.hub)) != 1:
            raise UsageError(f"weights {self.tag!r} need exactly one of file, url and hub")

    def __hash__(self) -> int:
        return hash((self.tag, self.file, self.url, self.hub))

    @property
    def digest(self) -> str | None:
        """The sha256 digits that are known in advance: stated, or in the file's own name."""
        if self.sha256:
            return self.sha256.lower()
        found = re.search(r"-([0-9a-f]{8,64})\.\w+$", self.url or self.file or "")
        return found.group(1) if found else None


@dataclass(frozen=True)
class Backbone:
    """A named architecture that can be built, with the weights known for it.

    Args:
        name: unique within its source.
        builder: `"package.module:function"`, called as `build(weights=None, **kwargs)`, returning
            the network with random weights; zoo loads the weights.
        heads: every head, the main one first. Empty for an encoder that has none.
        preprocess: the default; weights may state their own.
        weights: what is published, the default first.
        kwargs: builder arguments.
        task: name of what it is trained for; a plugin may register others (`zoo.Task`).
        params: how many parameters the published network has; None where not known.
        license: licence of the default weights, for those that state none themselves; by default
            read from them.
        min_size: the smallest side in pixels that the network takes, where that is known.
        fixed_size: the network, once built, takes no size but that of its preprocess.
        image_size: the builder argument that builds a network of fixed size for another; None
            where there is none.
        in_chans: the builder argument that sets how many channels the network sees; None where its
            library builds it for three only.
        refuse: why zoo will not fine-tune it; None where it will.
        exceptions: promises of `zoo.testing` that it cannot keep, by name, each with the reason.
        source: the plugin's entry-point name; set by the registry.
        plugin: name of the plugin that it works through; set by the registry.
        origin: what registered it, in words; set by the registry.
        extends: the backbone that a registry file derived it from; set by the registry.
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
    source: str = ""
    plugin: str = ""
    origin: str = ""
    extends: Backbone | None = None

    def __post_init__(self) -> None:
        settle(self)
        if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", self.name):
            raise UsageError(f"{self.name!r} is not a backbone name", "letters, digits, _ . - only")
        if not self.heads and self.refuse is None:
            raise UsageError(f"backbone {self.name!r} names no head", "or state why in refuse=")
        tags = [weights.tag for weights in self.weights]
        if len(set(tags)) != len(tags):
            raise UsageError(f"backbone {self.name!r} publishes two weights of one tag")
        if self.weights and self.license != self.weights[0].license:
            self._settle_license()

    def _settle_license(self) -> None:
        """Make backbone and default weights say the same; what weights say themselves stands."""
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

    @property
    def pretrained(self) -> bool:
        """Whether any weights are published for it."""
        return bool(self.weights)

    @property
    def published(self) -> Backbone:
        """What its plugin registered: itself, or at last what it is derived from."""
        return self.extends.published if self.extends else self

    def find_weights(self, tag: str) -> Weights:
        """Return the published weights of that tag.

        Raises:
            UsageError: nothing of that tag is published; names the nearest.
        """
        for weights in self.weights:
            if weights.tag == tag:
                return weights
        tags = [weights.tag for weights in self.weights]
        known = f"published: {', '.join(tags)}" if tags else "it publishes none; use none or a file"
        message = f"{self.id} publishes no weights tagged {tag!r}"
        raise UsageError(message, did_you_mean(tag, tags, known))

    def preprocess_for(self, weights: Weights | None) -> Preprocess:
        """Return the preprocess of these weights, or the backbone's own."""
        return (weights.preprocess if weights else None) or self.preprocess

    def build(
        self,
        classes: int | None = None,
        weights: str | Path | None = None,
        *,
        head: str | None = None,
        head_at: str | None = None,
        input_size: int | None = None,
        in_chans: int | None = None,
    ) -> nn.Module:
        """Build the network, its heads replaced for `classes`, nothing frozen.

        Args:
            classes: width of the new heads; None leaves the published heads.
            weights: None or `"none"` for random ones, `"auto"`, a published tag, or a file.
            head: what replaces the main head: `"linear"`, or `"mlp:4096,dropout=0.5"`.
            head_at: path of the module that it replaces; None for the leaf.
            input_size: height and width in pixels of what it sees; None for its own.
            in_chans: channels that it sees; None for three.

        Returns:
            The network, in training mode, on the CPU.

        Raises:
            UsageError: its library does not build it with that size or those channels.
            WeightsError: the weights cannot be reached or are refused.
            BrokenBackbone: it does not build, or is not what its adapter says.
        """
        # By name, as an adapter names its builder: this room imports nothing above it.
        build = resolve_target("zoo.models.build:build_backbone", "zoo")
        changes = {"head": head, "head_at": head_at, "input_size": input_size, "in_chans": in_chans}
        return build(self, classes, weights, **changes)  # type: ignore[no-any-return]

    def with_source(self, source: str, origin: str) -> Backbone:
        """Return the same description under its owner's name."""
        return _with_owner(self, source=source, plugin=source, origin=origin)


@dataclass(frozen=True)
class Family:
    """Many backbones described by a library, enumerated once per installed version.

    Args:
        distribution: the installed distribution whose version the catalogue belongs to.
        catalogue: `"package.module:function"`, called without arguments, yielding `Backbone`s. It
            may import the library; it runs in a process of its own, and its answer is kept.
        source: the plugin's entry-point name; set by the registry.
    """

    distribution: str
    catalogue: str
    source: str = ""

    def __post_init__(self) -> None:
        settle(self)

    def with_source(self, source: str, origin: str) -> Family:
        """Return the same description under its owner's name."""
        return _with_owner(self, source=source)


@dataclass(frozen=True)
class Task:
    """What a network is trained to predict: it decides data, loss, metric and predictions.

    Args:
        name: unique among all plugins: lower-case letters, digits and hyphens.
        summary: what it predicts, in one line.
        target: `"package.module:ClassName"` of what implements it; imported only when it is used.
        source: the plugin's entry-point name; set by the registry.
        plugin: the same, as a backbone has it; set by the registry.
        origin: what registered it, in words; set by the registry.
    """

    name: str
    summary: str
    target: str
    source: str = ""
    plugin: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        settle(self)
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            hint = "lower-case letters, digits and hyphens only, like image-classification"
            raise UsageError(f"{self.name!r} is not a task name", hint)
        if not self.summary.strip() or len(self.summary.splitlines()) != 1:
            raise UsageError(f"task {self.name!r} needs a summary of one line")
        if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", self.target):
            hint = 'write it as "package.module:ClassName"'
            raise UsageError(f"task {self.name!r} has the target {self.target!r}", hint)

    def with_source(self, source: str, origin: str) -> Task:
        """Return the same description under its owner's name."""
        return _with_owner(self, source=source, plugin=source, origin=origin)


def _with_owner(record: Owned, **owner: str) -> Owned:
    """Return a copy of a record under its owner's name."""
    # Not `replace`, which would check every field again, for each backbone of each `zoo list`.
    owned = copy(record)
    for name, value in owner.items():
        object.__setattr__(owned, name, value)
    return owned
