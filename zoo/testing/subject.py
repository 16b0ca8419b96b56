"""A backbone on trial, and the networks that several checks share."""

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
from zoo.modelfile import tensor_bytes
from zoo.models.build import resolve_and_build
from zoo.models.build_options import NO_OPTIONS, BuildOptions
from zoo.models.builder import build_network
from zoo.models.heads import head_width, replace_heads, resolve_head
from zoo.models.input_size import why_not_size
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Preprocess
from zoo.tasks.base import BaseTask, load_task
from zoo.testing.offline import forbid_network

# Small pictures make a trial short; at less than 64 pixels many a network has one number left for
# each channel, of which batch norm makes nothing.
SMALL_SIZES = (64, 96, 128, 160, 192, 224, 256)
SETTLING_IMAGES = 8


@dataclass
class Subject:
    """One backbone, and what the checks need of it; built when first asked for.

    Args:
        backbone: its description, as the registry has it.
        registry: where a model file finds it again.
        fresh: loads a model file in a process of its own: called with it and a batch, gives the
            logits there; None where that is left out.
    """

    backbone: Backbone
    registry: Registry
    fresh: Callable[[Path, Tensor], Tensor] | None = None
    ran: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def task(self) -> BaseTask:
        """The task of the backbone."""
        return load_task(self.registry.task(self.backbone.task))

    @cached_property
    def folder(self) -> Path:
        """A place for files, which goes when the subject goes."""
        self._folder = tempfile.TemporaryDirectory(prefix="zoo-testing-")
        return Path(self._folder.name)

    def _make(self, device: str, kwargs: Mapping[str, Any]) -> nn.Module:
        with torch.device(device), forbid_network() as asked:
            try:
                return build_network(self.backbone, kwargs)
            finally:
                self.asked += asked

    @cached_property
    def _first(self) -> tuple[str, str, nn.Module]:
        """Where the network can be made and where it can run, and itself as it runs there.

        torch's meta device has shapes and no values; a network that reads its own numbers fails
        there in many ways, while it is made or while it runs.
        """
        kwargs = self.backbone.kwargs
        try:
            made_on, model = "meta", self._make("meta", kwargs)
        except Exception:
            made_on, model = "cpu", self._make("cpu", kwargs)
        try:
            model = model.to("meta")
            run(model, self.backbone.preprocess)
        except Exception:
            return made_on, "cpu", self._make("cpu", kwargs)
        return made_on, "meta", model

    @property
    def made_on(self) -> str:
        """`meta`, where its library can make it without memory; else `cpu`."""
        return self._first[0]

    def build(self, kwargs: Mapping[str, Any]) -> nn.Module:
        """Return a network with its published head; without memory, where it runs that way.

        Raises:
            BrokenBackbone: it does not build.
        """
        made_on, runs_on, _ = self._first
        return self._make("cpu" if runs_on == "cpu" else made_on, kwargs).to(runs_on)

    @cached_property
    def published(self) -> nn.Module:
        """The network as it is described, with its published head; not to be changed."""
        _, runs_on, model = self._first
        own = self.backbone.preprocess
        self.ran["structure"] = f"{runs_on} {own.height}x{own.width}"
        return model

    def cut(self, classes: int, heads: int | None = None) -> nn.Module:
        """Return a copy of the published network with its heads replaced.

        Args:
            classes: that the new heads end in.
            heads: how many are replaced, from the first; None for all.
        """
        model = copy.deepcopy(self.published)
        chosen = self.backbone.heads[:heads]
        replace_heads(model, chosen, classes, self.backbone.preprocess)
        return model

    @cached_property
    def small(self) -> BuildOptions:
        """Build options for the smallest images that the network takes."""
        own = min(self.backbone.preprocess.height, self.backbone.preprocess.width)
        for size in (size for size in SMALL_SIZES if size < own):
            options = BuildOptions(input_size=size)
            try:
                described = options.apply(self.backbone)
                with torch.device(self.made_on):
                    model = build_network(described, described.kwargs)
                if why_not_size(model, described.preprocess) is None:
                    return options
            except (ZooError, NotImplementedError):
                continue
        return NO_OPTIONS

    @cached_property
    def settled(self) -> Path:
        """A file of weights: random, with the statistics of batch norm settled on one batch.

        Random weights whose statistics are still at nought and one give features of any size, and
        nothing that could be judged.
        """
        model = resolve_and_build(self.backbone, None, seed=0, options=self.small)
        preprocess = self.small.apply(self.backbone).preprocess
        self.ran["values"] = f"cpu {preprocess.height}x{preprocess.width}"
        settle_statistics(model, noise(SETTLING_IMAGES, preprocess, seed=0))
        path = self.folder / "settled.safetensors"
        write_bytes(path, tensor_bytes(model.state_dict()))
        return path

    @cached_property
    def group(self) -> str:
        """What makes it like others: library, class, heads, widths, batch norm, size."""
        model = self.published
        leaves = [resolve_head(model, head.path) for head in self.backbone.heads]
        heads = []
        for head, path in zip(self.backbone.heads, leaves, strict=True):
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


def run(model: nn.Module, preprocess: Preprocess, training: bool = False, images: int = 2) -> Any:
    """Run a network on blank images of its own size, and return what it gives.

    Args:
        model: its modes are put to `training`.
        preprocess: whose size and channels the images have.
        training: as in training, or as in use.
        images: how many.
    """
    example = next(model.parameters())
    shape = (images, preprocess.channels, preprocess.height, preprocess.width)
    with torch.no_grad():
        return model.train(training)(torch.zeros(shape, device=example.device, dtype=example.dtype))


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every layer that keeps statistics of its batches."""
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def settle_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of batch norm to those of one batch.

    Args:
        model: changed in place.
        images: uint8, as `noise` makes them.
    """
    normed = batch_norms(model)
    momenta = [part.momentum for part in normed]
    for part in normed:
        part.momentum = 1.0
    with torch.no_grad():
        model.train()(images.float() / 127.5 - 1)
    for part, momentum in zip(normed, momenta, strict=True):
        part.momentum = momentum
