"""The new main head of a network: one linear layer, or an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError
from zoo.options.formatting import shortest
from zoo.spec import path_steps

FORMS = "linear, mlp:512 or mlp:4096,dropout=0.5"
MAX_LAYERS = 8
MAX_WIDTH = 1 << 20


def module_path(text: str) -> str:
    """Return the path of a module in its dotted form, such as `classifier.6`.

    Raises:
        UsageError: it is not a path.
    """
    return ".".join(path_steps(text))


@dataclass(frozen=True)
class HeadSpec:
    """The new main head.

    Args:
        hidden: widths of the hidden layers, each followed by ReLU; empty for one linear layer.
        dropout: probability after each ReLU, in [0, 1).
        at: path of the module to replace, which is the head or contains it; None for the head's
            leaf module. Not part of the text.
    """

    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    at: str | None = None

    def __str__(self) -> str:
        if not self.hidden:
            return "linear"
        dropout = [f"dropout={shortest(self.dropout)}"] if self.dropout else []
        return f"mlp:{','.join([*map(str, self.hidden), *dropout])}"

    @property
    def plain(self) -> bool:
        """Whether it is the default: one linear layer at the leaf."""
        return not self.hidden and self.at is None

    @classmethod
    def parse(cls, text: str | None, at: str | None = None) -> HeadSpec:
        """Parse a head.

        Args:
            text: `linear`; `mlp:WIDTH[,WIDTH...][,dropout=P]`, linear layers of these widths, each
                followed by ReLU and dropout, and a linear layer to the classes; None for `linear`.
            at: path of the module to replace; None for the leaf.

        Raises:
            UsageError: the text or the path is malformed.
        """
        if at is not None:
            at = module_path(at)
        if text in (None, "linear"):
            return cls(at=at)
        kind, _, rest = str(text).partition(":")
        widths = [part for part in rest.split(",") if "=" not in part]
        settings = [part for part in rest.split(",") if "=" in part]
        try:
            if kind != "mlp" or len(settings) > 1:
                raise ValueError
            dropout = 0.0
            for setting in settings:
                name, _, value = setting.partition("=")
                if name.strip() != "dropout":
                    raise ValueError
                dropout = float(value)
            hidden = tuple(int(width) for width in widths)
            if not hidden:
                raise ValueError
        except ValueError:
            raise UsageError(f"{text!r} is not a head", f"write {FORMS}") from None
        return _checked(cls(hidden, dropout, at), str(text))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for a model file; empty for the default."""
        if self.plain:
            return {}
        return {"hidden": list(self.hidden), "dropout": self.dropout, "at": self.at}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeadSpec:
        """Create a head from the output of `to_dict`.

        Raises:
            UsageError, TypeError, KeyError, ValueError: it is invalid.
        """
        if not plain:
            return PLAIN
        head = cls(tuple(plain["hidden"]), float(plain["dropout"]), plain["at"])
        if head.at is not None:
            module_path(head.at)
        return _checked(head, str(dict(plain)))


PLAIN = HeadSpec()


def _checked(head: HeadSpec, text: str) -> HeadSpec:
    widths = all(isinstance(width, int) and 1 <= width <= MAX_WIDTH for width in head.hidden)
    if not widths or not 0 <= head.dropout < 1 or len(head.hidden) > MAX_LAYERS:
        raise UsageError(f"{text!r} is not a head", f"write {FORMS}")
    return head
