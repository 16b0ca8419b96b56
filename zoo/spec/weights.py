"""Published weights, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import hexdigits
from typing import Any

from zoo.errors import UsageError, counted
from zoo.records import FrozenDict, validate, with_fields
from zoo.spec.preprocess import Preprocess
from zoo.spec.targets import check_package_file, check_target


@dataclass(frozen=True, slots=True)
class Weights:
    """A published set of weights, in exactly one of `file`, `url` and `hub`.

    Args:
        tag: the publisher's name for it, unique within the backbone.
        file: `"package:path"`, a file inside an installed package, or an absolute path.
        url: of the download; a name like `resnet18-f37072fd.pth` contains its digest.
        hub: a repository on the Hugging Face hub, optionally with `:filename`.
        sha256: digest of the file, or its first digits.
        license: an SPDX identifier or the licence's URL; None where not stated.
        preprocess: of these weights; None for the backbone's.
        num_classes: width of the published main head; 0 without a head.
        classes: the names of the published classes in order, or `"package.module:attribute"`, a
            sequence or a function without arguments that returns one; None where unknown.
        metrics: the publisher's results, such as `{"imagenet-1k/top1": 0.6976}`.
        kwargs: builder arguments of these weights, in addition to the backbone's.
        convert: `"package.module:function"`, called as `convert(path, backbone, weights)`,
            returning the backbone's state dict; None where the file contains it.
        features_only: the head is untrained, so these weights cannot predict.
        names: other names by which the publisher refers to them, such as
            `ResNet18_Weights.DEFAULT`.
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
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validate(self)
        if not self.tag or self.tag in ("auto", "none"):
            raise UsageError(f"weights cannot be tagged {self.tag!r}", "auto and none are taken")
        if sum(location is not None for location in (self.file, self.url, self.hub)) != 1:
            raise UsageError(f"weights {self.tag!r} need exactly one of file, url and hub")
        self._check_form()
        if isinstance(self.classes, tuple) and len(self.classes) != self.num_classes:
            message = f"weights {self.tag!r} name {counted(len(self.classes), 'class')}"
            raise UsageError(
                f"{message}, and have num_classes={self.num_classes}", "correct either"
            )

    def _check_form(self) -> None:
        """Check what of the fields can be without opening anything."""
        if self.file is not None:
            check_package_file(self.file, f"weights {self.tag!r} have the file")
        if self.sha256 and not set(self.sha256) <= set(hexdigits):
            hint = "give the 64 hexadecimal digits that `sha256sum FILE` prints"
            raise UsageError(f"weights {self.tag!r} have the sha256 {self.sha256!r}", hint)
        if self.convert is not None:
            check_target(self.convert, f"weights {self.tag!r} have the converter")
        if isinstance(self.classes, str):
            check_target(self.classes, f"weights {self.tag!r} have the classes")

    def __hash__(self) -> int:
        return hash((self.tag, self.file, self.url, self.hub))

    @property
    def digest(self) -> str | None:
        """The published sha256, or its first digits, as stated or from the file name."""
        if self.sha256:
            return self.sha256.lower()
        match = re.search(r"-([0-9a-f]{8,64})\.\w+$", self.url or self.file or "")
        return match.group(1) if match else None


@dataclass(frozen=True)
class AddedWeights:
    """Weights for a backbone of another plugin, in addition to those that it publishes.

    Args:
        backbone: its id, such as `timm/mobilenetv2_100`.
        weights: with a tag that it does not have. They become the default only where it publishes
            none.
        source: the plugin's entry-point name; set by the registry.
        origin: description of what registered them; set by the registry.
    """

    backbone: str
    weights: Weights
    source: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        validate(self)
        if not re.fullmatch(r"[\w.\-]+/[\w.\-]+", self.backbone):
            raise UsageError(f"{self.backbone!r} is not an id", "write it like timm/resnet18")

    @property
    def name(self) -> str:
        """The id with the tag, unique among all plugins."""
        return f"{self.backbone}.{self.weights.tag}"

    def with_source(self, source: str, origin: str) -> AddedWeights:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, origin=origin)
