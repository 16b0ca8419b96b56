"""A backbone under test, and the networks that its checks share."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.images import noise
from zoo.errors import ZooError
from zoo.files import write_bytes
from zoo.models.build import resolve_and_build
from zoo.models.build_options import NO_OPTIONS, BuildOptions
from zoo.models.builder import build_network
from zoo.models.heads import blank_images, head_width, replace_heads, resolve_head
from zoo.models.input_size import size_conflict
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Preprocess
from zoo.tasks.base import BaseTask, load_task
from zoo.tensorfile import tensor_bytes
from zoo.testing.offline import forbid_network

# Small images make checks fast; below 64 pixels, many networks reduce to 1x1 features, which batch
# norm cannot normalise in a batch of one.
SMALL_SIZES = (64, 96, 128, 160, 192, 224, 256)
CALIBRATION_IMAGES = 8


@dataclass
class Subject:
    """A backbone under test; networks are built on first access.

    Args:
        backbone: its description.
        registry: the registry that model files are loaded with.
        fresh: called with a model file and a batch, returns the logits of a fresh process; None
            skips that comparison.

    Attributes:
        ran: device and image size, by kind of check.
        connections: network connections that its builder attempted.
        memo: results shared by several checks.
        causes: checks that could not be completed, each with the one that fails for its cause.
    """

    backbone: Backbone
    registry: Registry
    fresh: Callable[[Path, Tensor], Tensor] | None = None
    ran: dict[str, str] = field(default_factory=dict)
    connections: list[str] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def task(self) -> BaseTask:
        """The task of the backbone."""
        return load_task(self.registry.task(self.backbone.task))

    @cached_property
    def folder(self) -> Path:
        """A temporary folder, deleted with this object."""
        self._folder = tempfile.TemporaryDirectory(prefix="zoo-testing-")
        return Path(self._folder.name)

    def _build_on(self, device: str, kwargs: Mapping[str, Any]) -> nn.Module:
        with torch.device(device), forbid_network() as attempts:
            try:
                return build_network(self.backbone, kwargs)
            finally:
                self.connections += attempts

    @cached_property
    def _devices_and_network(self) -> tuple[str, str, nn.Module]:
        """The device to build on, the device to run on, and the network on the latter.

        Both are `meta` where possible. Networks that read tensor values fail there with many
        kinds of exception, while they are built or in a forward pass.
        """
        kwargs = self.backbone.kwargs
        try:
            build_device, model = "meta", self._build_on("meta", kwargs)
        except Exception:
            build_device, model = "cpu", self._build_on("cpu", kwargs)
        try:
            model = model.to("meta")
            for training in (True, False):
                forward_zeros(model, self.backbone.preprocess, training)
        except Exception:
            return build_device, "cpu", self._build_on("cpu", kwargs)
        return build_device, "meta", model

    @property
    def build_device(self) -> str:
        """`meta` if its library can build it there, else `cpu`."""
        return self._devices_and_network[0]

    def build(self, kwargs: Mapping[str, Any]) -> nn.Module:
        """Return a network with its published head, on `meta` if it runs there.

        Raises:
            BrokenBackbone: it does not build.
        """
        build_device, run_device, _ = self._devices_and_network
        device = "cpu" if run_device == "cpu" else build_device
        return self._build_on(device, kwargs).to(run_device)

    @cached_property
    def published(self) -> nn.Module:
        """The network as described, with its published head; do not modify it."""
        _, run_device, model = self._devices_and_network
        own = self.backbone.preprocess
        self.ran["structure"] = f"{run_device} {own.height}x{own.width}"
        return model

    @cached_property
    def head_paths(self) -> list[str]:
        """The paths of the layers that the heads resolve to, in their order."""
        return [resolve_head(self.published, head.path) for head in self.backbone.heads]

    def with_classes(self, classes: int, heads: int | None = None) -> nn.Module:
        """Return a copy of the published network with its heads replaced.

        Args:
            classes: outputs of the new heads.
            heads: how many heads are replaced, from the first; None for all.
        """
        model = copy.deepcopy(self.published)
        replaced = self.backbone.heads[:heads]
        replace_heads(model, replaced, classes, self.backbone.preprocess)
        return model

    @cached_property
    def small_input(self) -> BuildOptions:
        """Build options for the smallest image size that the network accepts."""
        own = min(self.backbone.preprocess.height, self.backbone.preprocess.width)
        for size in (size for size in SMALL_SIZES if size < own):
            options = BuildOptions(input_size=size)
            try:
                described = options.apply(self.backbone)
                with torch.device(self.build_device):
                    model = build_network(described, described.kwargs)
                if size_conflict(model, described.preprocess) is None:
                    return options
            except (ZooError, NotImplementedError):
                continue
        return NO_OPTIONS

    @cached_property
    def calibrated(self) -> Path:
        """A file of random weights, with batch norm statistics of one batch.

        With the initial statistics (mean 0, variance 1), features of random weights explode or
        vanish.
        """
        model = resolve_and_build(self.backbone, None, seed=0, options=self.small_input)
        preprocess = self.small_input.apply(self.backbone).preprocess
        self.ran["values"] = f"cpu {preprocess.height}x{preprocess.width}"
        calibrate_batch_norm(model, noise(CALIBRATION_IMAGES, preprocess, seed=0))
        path = self.folder / "calibrated.safetensors"
        write_bytes(path, tensor_bytes(model.state_dict()))
        return path

    @cached_property
    def group(self) -> str:
        """The group of similar backbones: library, class, heads, widths, batch norm, size."""
        model = self.published
        heads = []
        for head, path in zip(self.backbone.heads, self.head_paths, strict=True):
            leaf = model.get_submodule(path)
            width, stated = head_width(leaf), getattr(model, "num_features", None)
            relation = "?" if stated is None else "=" if width == stated else "!"
            heads.append(f"{head.role}:{type(leaf).__name__}{relation}")
        facts = [
            f"{type(model).__module__}.{type(model).__qualname__}",
            "+".join(heads) or "no head",
            "batch norm" if batch_norms(model) else "no batch norm",
            "fixed size" if self.backbone.fixed_size else "any size",
        ]
        return ", ".join(facts)


def forward_zeros(
    model: nn.Module, preprocess: Preprocess, training: bool = False, images: int = 2
) -> Any:
    """Return the output of a network for images of zeros.

    Args:
        model: set to train or eval mode.
        preprocess: size and channels of the images.
        training: train mode if true, else eval mode.
        images: size of the batch.
    """
    model.train(training)
    with torch.no_grad():
        return model(blank_images(model, preprocess, images))


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every batch norm layer."""
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def calibrate_batch_norm(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of batch norm to those of one batch.

    Args:
        model: modified in place.
        images: `[images, channels, height, width]`, uint8.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(images.float() / 127.5 - 1)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
