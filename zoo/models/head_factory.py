"""What takes a head's place: one layer, or a small network of its own, at the leaf or around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.spec import Head, path_steps

FORMS = "linear, mlp:512 or mlp:4096,dropout=0.5"
MOST_LAYERS = 8
MOST_WIDTH = 1 << 20


@dataclass(frozen=True)
class NewHead:
    """What takes the place of a main head.

    Args:
        hidden: widths of the layers before the last one, each followed by ReLU; none for a head
            that is one linear layer.
        dropout: the share that is dropped after each ReLU, below 1.
        at: path of the module that is replaced, which ends in the classes or holds what does; None
            for the leaf alone.
    """

    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    at: str | None = None

    def __str__(self) -> str:
        if not self.hidden:
            return "linear"
        parts = [*map(str, self.hidden), *([f"dropout={self.dropout:g}"] if self.dropout else [])]
        return f"mlp:{','.join(parts)}"

    @property
    def plain(self) -> bool:
        """Whether it is what zoo puts in unasked: one layer at the leaf."""
        return not self.hidden and self.at is None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for a model file; empty where it is the plain one."""
        if self.plain:
            return {}
        return {"hidden": list(self.hidden), "dropout": self.dropout, "at": self.at}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> NewHead:
        """Read back what `to_dict` gave.

        Raises:
            UsageError, TypeError, KeyError, ValueError: it is nothing of the kind.
        """
        if not plain:
            return PLAIN
        head = cls(tuple(plain["hidden"]), float(plain["dropout"]), plain["at"])
        if head.at is not None:
            path_steps(head.at)
        return _checked(head, str(dict(plain)))


PLAIN = NewHead()


def _checked(head: NewHead, said: str) -> NewHead:
    widths = all(isinstance(width, int) and 1 <= width <= MOST_WIDTH for width in head.hidden)
    if not widths or not 0 <= head.dropout < 1 or len(head.hidden) > MOST_LAYERS:
        raise UsageError(f"{said!r} is not a head", f"write {FORMS}")
    return head


def parse_head(text: str | None, at: str | None = None) -> NewHead:
    """Read a new head as the command line writes it.

    Args:
        text: `linear`; `mlp:WIDTH[,WIDTH...][,dropout=SHARE]`, linear layers of these widths, each
            with ReLU and dropout after it, and a linear layer to the classes; None for `linear`.
        at: path of the module that it replaces; None for the leaf.

    Raises:
        UsageError: it has neither form, or the path is malformed.
    """
    if at is not None:
        at = ".".join(path_steps(at))
    if text in (None, "linear"):
        return NewHead(at=at)
    kind, _, rest = str(text).partition(":")
    widths = [part for part in rest.split(",") if "=" not in part]
    settings = [part for part in rest.split(",") if "=" in part]
    try:
        if kind != "mlp" or len(settings) > 1:
            raise ValueError
        share = 0.0
        for setting in settings:
            name, _, value = setting.partition("=")
            if name.strip() != "dropout":
                raise ValueError
            share = float(value)
        hidden = tuple(int(width) for width in widths)
        if not hidden:
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is not a head", f"write {FORMS}") from None
    return _checked(NewHead(hidden, share, at), str(text))


def place_head(heads: Sequence[Head], new: NewHead, owner: str) -> tuple[Head, ...]:
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


def check_widths(tensors: Mapping[str, Tensor], heads: Sequence[Head], new: NewHead) -> None:
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
    new: NewHead, old: nn.Module, width: int, classes: int, like: Tensor, before: list[nn.Module]
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
