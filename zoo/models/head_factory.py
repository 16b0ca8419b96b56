"""Build new heads: one layer or an MLP, in place of a leaf or of its container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.options import HeadSpec
from zoo.spec import Head


def place_head(heads: Sequence[Head], new: HeadSpec, owner: str) -> tuple[Head, ...]:
    """Return a backbone's heads with the path of a new main head.

    Raises:
        UsageError: the path is neither the main head nor a container of it.
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
    replaced = replace(main, path=new.at, in_features=None)
    return tuple(replaced if head is main else head for head in heads)


def check_widths(tensors: Mapping[str, Tensor], heads: Sequence[Head], new: HeadSpec) -> None:
    """Check the hidden widths of a model file's head against its tensors, before layers are built.

    Args:
        tensors: of a model file.
        heads: in the file's metadata.
        new: in the file's metadata.

    Raises:
        UsageError: the tensors do not have these widths.
    """
    for head in heads if new.hidden else ():
        widths = {
            tensor.shape[0]
            for name, tensor in tensors.items()
            if name.startswith(f"{head.module_path}.") and tensor.ndim > 1
        }
        if head.role != "aux" and not set(new.hidden) <= widths:
            raise UsageError(f"its head {head.path} is described as {new}, and is not")


class HeadStack(nn.Sequential):
    """A head of several layers, frozen, trained and replaced as a unit."""

    def _weights(self) -> list[Tensor]:
        return [layer.weight for layer in self if isinstance(layer, (nn.Linear, nn.Conv2d))]

    @property
    def width(self) -> int:
        """Number of input features."""
        return self._weights()[0].shape[1]

    @property
    def classes(self) -> int:
        """Number of output classes."""
        return len(self._weights()[-1])


class MeanPool(nn.Module):
    """The mean over height and width of `[images, height, width, channels]`."""

    def forward(self, features: Tensor) -> Tensor:
        """Return `[images, channels]`."""
        return features.mean(dim=(1, 2))


def new_layer(old: nn.Module, width: int, classes: int, like: Tensor) -> nn.Linear | nn.Conv2d:
    """Return a layer that replaces another of the same type, with torch's initialisation.

    Args:
        old: a Conv2d is replaced by a Conv2d, anything else by a Linear; with a bias unless the
            old layer has none.
        width: number of input features.
        classes: number of outputs.
        like: device and dtype of the new layer.
    """
    factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(
            width,
            classes,
            kernel_size=1,
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
            **factory,
        )
    bias = old.bias is not None if isinstance(old, nn.Linear) else True
    return nn.Linear(width, classes, bias=bias, **factory)


def new_layers(
    new: HeadSpec, old: nn.Module, width: int, classes: int, like: Tensor, before: list[nn.Module]
) -> nn.Module:
    """Return the replacement of a head: one layer, or several as a `HeadStack`.

    Args:
        new: description of the new head.
        old: the leaf or container that is replaced.
        width: number of input features.
        classes: number of output classes.
        like: device and dtype of the new layers.
        before: layers that pool the input to one vector per image.
    """
    layers = list(before)
    factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    for size in new.hidden:
        inner: nn.Module = (
            nn.Conv2d(width, size, kernel_size=1, **factory)
            if isinstance(old, nn.Conv2d)
            else nn.Linear(width, size, **factory)
        )
        layers += [inner, nn.ReLU()]
        layers += [nn.Dropout(new.dropout)] if new.dropout else []
        width = size
    last = new_layer(old, width, classes, like)
    return HeadStack(*layers, last) if layers else last
