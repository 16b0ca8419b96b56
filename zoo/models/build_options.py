"""What is asked of a backbone beyond its description: another image size, channels, or head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.head_factory import place_head
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN
from zoo.spec import Backbone, Preprocess


@dataclass(frozen=True)
class Changes:
    """What is changed of a backbone beside its number of classes.

    Args:
        input_size: height and width in pixels of what the network sees; None for its own.
        in_chans: channels that it sees; None for its own, which are three.
        head: what replaces the main head.
    """

    input_size: int | None = None
    in_chans: int | None = None
    head: HeadSpec = PLAIN

    def preprocess(self, own: Preprocess) -> Preprocess:
        """Return a preprocess with the size and channels that are wanted.

        The share of the picture that the crop keeps stays. One channel is grey, and takes the mean
        of the colours' mean and std; more than three take theirs in turn.
        """
        changed = own
        if self.input_size is not None:
            assert own.resize is not None
            scale = self.input_size / min(own.height, own.width)
            resize = max(math.floor(own.resize * scale), self.input_size)
            changed = replace(changed, size=self.input_size, resize=resize)
        if self.in_chans is not None and self.in_chans != own.channels:
            mean, std = (_spread(values, self.in_chans) for values in (own.mean, own.std))
            changed = replace(changed, mean=mean, std=std)
        return changed

    def kwargs(self, backbone: Backbone) -> Mapping[str, Any]:
        """Return the builder arguments that these changes need.

        Raises:
            UsageError: the backbone cannot be built that way; says what it takes.
        """
        wanted: dict[str, Any] = {}
        own = backbone.preprocess
        if self.in_chans is not None and self.in_chans != own.channels:
            if backbone.in_chans is None:
                message = f"--in-chans {self.in_chans}: {backbone.id} takes {own.channels} channels"
                hint = "its library builds it with no other; timm's networks take any number"
                raise UsageError(message, hint)
            wanted[backbone.in_chans] = self.in_chans
        if self.input_size is None or not backbone.fixed_size:
            return wanted
        sizes = {backbone.preprocess_for(weights).size for weights in (None, *backbone.weights)}
        if sizes == {(self.input_size, self.input_size)}:
            return wanted
        if backbone.image_size is None:
            raise size_refused(backbone, self.input_size, "")
        return {**wanted, backbone.image_size: self.input_size}

    def apply(self, backbone: Backbone) -> Backbone:
        """Return the backbone's description with the size and channels that are wanted.

        Raises:
            UsageError: it cannot be built that way.
        """
        kwargs = self.kwargs(backbone)
        if self.input_size is None and not kwargs:
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

    def placed(self, backbone: Backbone) -> Backbone:
        """Return the description with the new head in its place.

        Raises:
            UsageError: the new head's place has nothing to do with where the classes come from.
        """
        return replace(backbone, heads=place_head(backbone.heads, self.head, backbone.id))


UNCHANGED = Changes()


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[number % len(values)] for number in range(channels))


def size_refused(
    backbone: Backbone, size: int, reason: str, takes: int | None = None
) -> UsageError:
    """Return why a backbone cannot be fed with images of a size, and which it takes.

    Args:
        backbone: as it is described.
        size: in pixels, refused.
        reason: what it says itself; may be empty.
        takes: a size near it that it was seen to take.
    """
    own = backbone.preprocess
    said = f": {reason}" if reason else ""
    if takes is not None:
        hint = f"the nearest that it takes is {takes}"
    else:
        hint = f"give {own.height}, or leave --input-size out"
    only = (
        f"{backbone.id} takes {own.height}x{own.width} images only" if backbone.fixed_size else ""
    )
    refused = only or f"{backbone.id} cannot take {size}x{size} images"
    return UsageError(f"--input-size {size}: {refused}{said}", hint)


def changes_refused(backbone: Backbone, changes: Changes, error: BrokenBackbone) -> Exception:
    """Return why a backbone does not build: its own fault, or that of what was asked for.

    Args:
        backbone: as it is described.
        changes: that it was to be built with.
        error: what became of it.
    """
    wanted = changes.kwargs(backbone)
    reason = error.message.partition(": ")[2] or error.message
    if not wanted and changes.input_size is not None:
        return size_refused(backbone, changes.input_size, reason)
    if not wanted:
        return error
    arguments = ", ".join(f"{name}={value}" for name, value in wanted.items())
    own = backbone.preprocess
    hint = f"it takes {own.height}x{own.width} images of {own.channels} channels"
    return UsageError(f"{backbone.id} cannot be built with {arguments}: {reason}", hint)
