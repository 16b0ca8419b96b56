"""What takes a head's place: one layer, or a small network of its own, at the leaf or around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.options import HeadSpec
from zoo.spec import Head


def place_head(heads: Sequence[Head], new: HeadSpec, owner: str) -> tuple[Head, ...]:
    """Return a backbone's heads as they are once the new one is in its place.

    Raises:
        UsageError: the new head's place has nothing to do with where the classes come from.
    """
    if new.at is None:
        return tuple(heads)
    mains = [head for head in heads if head.role == "main"]
    if len(mains) != 1:
        paths = ", ".join(head.path for head in mains)
        raise UsageError(f"--head-at: {owner} has {len(mains)} main heads: {paths}", "leave it out")
    (main,) = mains
    if main.module_path != new.at and not main.module_path.startswith(f"{new.at}."):
        steps = main.module_path.split(".")
        above = [".".join(steps[:depth]) for depth in range(len(steps), 0, -1)]
        hint = f"give {' or '.join(above)}"
        message = f"--head-at {new.at}: the classes of {owner} come from {main.path}"
        raise UsageError(message, hint)
    placed = replace(main, path=new.at, in_features=None)
    return tuple(placed if head is main else head for head in heads)


def check_widths(tensors: Mapping[str, Tensor], heads: Sequence[Head], new: HeadSpec) -> None:
    """Refuse widths that a file's own tensors do not have, before layers are made of them.

    Args:
        tensors: of a model file.
        heads: as the file names them.
        new: as the file describes it.

    Raises:
        UsageError: it says one thing and holds another.
    """
    for head in heads if new.hidden else ():
        held = {
            tensor.shape[0]
            for name, tensor in tensors.items()
            if name.startswith(f"{head.module_path}.") and tensor.ndim > 1
        }
        if head.role != "aux" and not set(new.hidden) <= held:
            raise UsageError(f"its head {head.path} is said to be {new}, and is not")


class HeadStack(nn.Sequential):
    """A head of several layers, which is frozen, trained and replaced as one."""

    def _weights(self) -> list[Tensor]:
        return [layer.weight for layer in self if isinstance(layer, (nn.Linear, nn.Conv2d))]

    @property
    def width(self) -> int:
        """How many features it reads."""
        return self._weights()[0].shape[1]

    @property
    def classes(self) -> int:
        """How many classes it ends in."""
        return len(self._weights()[-1])


class MeanPool(nn.Module):
    """The mean over height and width of `[images, height, width, channels]`."""

    def forward(self, features: Tensor) -> Tensor:
        """Return `[images, channels]`."""
        return features.mean(dim=(1, 2))


def new_layer(old: nn.Module, width: int, classes: int, like: Tensor) -> nn.Linear | nn.Conv2d:
    """Return one layer that replaces another like for like, as torch initialises it.

    Args:
        old: a Conv2d is replaced by a Conv2d, anything else by a Linear; with a bias unless the
            old one has none.
        width: how many features it reads.
        classes: how many values it gives.
        like: whose device and dtype it has.
    """
    where: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(
            width,
            classes,
            kernel_size=1,
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
            **where,
        )
    biased = old.bias is not None if isinstance(old, nn.Linear) else True
    return nn.Linear(width, classes, bias=biased, **where)


def new_layers(
    new: HeadSpec, old: nn.Module, width: int, classes: int, like: Tensor, before: list[nn.Module]
) -> nn.Module:
    """Return what replaces a head: one layer, or several as a `HeadStack`.

    Args:
        new: what is wanted.
        old: the leaf or container that goes.
        width: how many features arrive.
        classes: how many classes it ends in.
        like: whose device and dtype the layers have.
        before: layers that turn what arrives into one vector for each image.
    """
    layers = list(before)
    where: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    for size in new.hidden:
        inner: nn.Module = (
            nn.Conv2d(width, size, kernel_size=1, **where)
            if isinstance(old, nn.Conv2d)
            else nn.Linear(width, size, **where)
        )
        layers += [inner, nn.ReLU()]
        layers += [nn.Dropout(new.dropout)] if new.dropout else []
        width = size
    last = new_layer(old, width, classes, like)
    return HeadStack(*layers, last) if layers else last
