"""Build options: another image size, another number of channels, another head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zoo.errors import BrokenBackbone, UsageError, counted
from zoo.models.head_factory import place_head
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Backbone, Preprocess


@dataclass(frozen=True)
class BuildOptions:
    """Differences of a network from its description, beside the number of classes.

    Args:
        input_size: height and width of the input in pixels; None for the backbone's own.
        in_chans: channels of the input; None for the backbone's own, which are three.
        head: replaces the main head.
        crop: of `Preprocess`; None for the backbone's own.
        resize: of `Preprocess`; None for the ratio to the size of the backbone's own.
        interpolation: of `Preprocess`; None for the backbone's own.
    """

    input_size: int | None = None
    in_chans: int | None = None
    head: HeadSpec = PLAIN
    crop: str | None = None
    resize: int | None = None
    interpolation: str | None = None

    def preprocess(self, own: Preprocess) -> Preprocess:
        """Return a preprocess with the size, crop, interpolation and channels of these options.

        The ratio of crop to image is preserved; another crop has its own. One channel is grey, with
        the averages of mean and std; more than three channels repeat mean and std in turn.
        """
        changed = own
        if self.crop not in (None, own.crop):
            changed = replace(changed, crop=self.crop, resize=None)
        if self.interpolation is not None:
            changed = replace(changed, interpolation=self.interpolation)
        if self.input_size is not None:
            assert changed.resize is not None
            scale = self.input_size / min(own.height, own.width)
            resize = max(math.floor(changed.resize * scale), self.input_size)
            changed = replace(changed, size=self.input_size, resize=resize)
        if self.resize is not None:
            changed = replace(changed, resize=self.resize)
        if self.in_chans is not None and self.in_chans != own.channels:
            mean, std = (_match_channels(values, self.in_chans) for values in (own.mean, own.std))
            changed = replace(changed, mean=mean, std=std)
        return changed

    def kwargs(self, backbone: Backbone) -> Mapping[str, Any]:
        """Return the builder arguments that these options require.

        Raises:
            UsageError: the backbone does not support them.
        """
        arguments: dict[str, Any] = {}
        own = backbone.preprocess
        if self.in_chans is not None and self.in_chans != own.channels:
            if backbone.in_chans is None:
                message = f"--in-chans {self.in_chans}: {backbone.id} takes {own.channels} channels"
                hint = "its library builds it with no other; timm's networks take any number"
                raise UsageError(message, hint)
            arguments[backbone.in_chans] = self.in_chans
        if self.input_size is None or not backbone.fixed_size:
            return arguments
        sizes = {backbone.preprocess_for(weights).size for weights in (None, *backbone.weights)}
        if sizes == {(self.input_size, self.input_size)}:
            return arguments
        if backbone.image_size is None:
            raise size_refused(backbone, self.input_size, "")
        return {**arguments, backbone.image_size: self.input_size}

    def kwargs_over(self, built: Preprocess, backbone: Backbone) -> Mapping[str, Any]:
        """Return the builder arguments that override those of an earlier network.

        Args:
            built: preprocess of the earlier network.
            backbone: its description, with these options applied.
        """
        arguments: dict[str, Any] = {}
        if backbone.in_chans and self.in_chans not in (None, built.channels):
            arguments[backbone.in_chans] = self.in_chans
        resized = self.input_size is not None and {built.height, built.width} != {self.input_size}
        if backbone.image_size and backbone.fixed_size and resized:
            arguments[backbone.image_size] = self.input_size
        return arguments

    def reason(self, own: str) -> str:
        """Return the origin of the preprocess.

        Args:
            own: its origin without these options.
        """
        given = {
            "--input-size": self.input_size,
            "--crop": self.crop,
            "--resize": self.resize,
            "--interpolation": self.interpolation,
            "--in-chans": self.in_chans,
        }
        flags = [f"{name} {value}" for name, value in given.items() if value is not None]
        return ", ".join([own, *flags])

    def apply(self, backbone: Backbone) -> Backbone:
        """Return the backbone's description with the preprocess and channels of these options.

        Raises:
            UsageError: the backbone does not support them.
        """
        kwargs = self.kwargs(backbone)
        images = (self.input_size, self.crop, self.resize, self.interpolation)
        if not kwargs and all(option is None for option in images):
            return backbone
        weights = tuple(
            replace(
                published,
                preprocess=self.preprocess(backbone.preprocess_for(published)),
                kwargs={**published.kwargs, **kwargs},
            )
            for published in backbone.weights
        )
        return replace(
            backbone,
            preprocess=self.preprocess(backbone.preprocess),
            kwargs={**backbone.kwargs, **kwargs},
            weights=weights,
        )

    def with_head(self, backbone: Backbone) -> Backbone:
        """Return the description with the path of the new head among its heads.

        Raises:
            UsageError: the path is not that of the main head, nor above it.
        """
        return replace(backbone, heads=place_head(backbone.heads, self.head, backbone.id))


NO_OPTIONS = BuildOptions()


def _match_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[number % len(values)] for number in range(channels))


def size_refused(
    backbone: Backbone, size: int, reason: str, takes: int | None = None
) -> UsageError:
    """Return the error for an unsupported input size, with a supported one as a hint.

    Args:
        backbone: as described.
        size: the unsupported size in pixels.
        reason: message of the network; may be empty.
        takes: the nearest size on which the network ran.
    """
    own = backbone.preprocess
    detail = f": {reason}" if reason else ""
    if takes is not None:
        hint = f"the nearest that it takes is {takes}"
    else:
        hint = f"give {own.height}, or leave --input-size out"
    only = (
        f"{backbone.id} takes {own.height}x{own.width} images only" if backbone.fixed_size else ""
    )
    refused = only or f"{backbone.id} cannot take {size}x{size} images"
    return UsageError(f"--input-size {size}: {refused}{detail}", hint)


def options_refused(backbone: Backbone, options: BuildOptions, error: BrokenBackbone) -> Exception:
    """Return the error for a failed build: a `UsageError` where the options caused it.

    Args:
        backbone: as described.
        options: build options.
        error: raised by the build.
    """
    arguments = options.kwargs(backbone)
    reason = error.message.partition(": ")[2] or error.message
    if not arguments and options.input_size is not None:
        return size_refused(backbone, options.input_size, reason)
    if not arguments:
        return error
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    own = backbone.preprocess
    hint = f"it takes {own.height}x{own.width} images of {counted(own.channels, 'channel')}"
    return UsageError(f"{backbone.id} cannot be built with {given}: {reason}", hint)
