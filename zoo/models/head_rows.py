"""Match the rows of trained heads to the classes of other data, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from torch import Tensor, nn

from zoo.errors import WeightsError, counted
from zoo.models.head_factory import HeadStack

# Names of a notice or a reason.
MAX_NAMES = 10


@dataclass(frozen=True)
class HeadRows:
    """Rows of trained heads that a network starts from.

    Args:
        kept: classes whose rows are those of the file.
        new: classes that the file does not have; their rows are initialised.
        left_out: classes of the file that the data does not have.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        parts = {"kept": self.kept, "new": self.new, "left out": self.left_out}
        listed = (f"{_listed(names)} {state}" for state, names in parts.items() if names)
        return "rows of the head by name: " + ", ".join(listed)


def _listed(names: Sequence[str]) -> str:
    first = ", ".join(names[:MAX_NAMES])
    return first if len(names) <= MAX_NAMES else f"{first} and {len(names) - MAX_NAMES:,} more"


def match_rows(
    model: nn.Module,
    heads: Sequence[str],
    tensors: Mapping[str, Tensor],
    trained: Sequence[str],
    classes: Sequence[str],
) -> tuple[dict[str, Tensor], HeadRows]:
    """Return tensors whose head rows are in the order of other classes, matched by name.

    Names are compared in Unicode's form C: file systems decompose accents.

    Args:
        model: with heads of `classes`, whose values new rows have.
        heads: module paths of all heads; of one of several layers, only the last has a row for
            each class.
        tensors: by the network's names.
        trained: classes of `tensors`, in the order of their rows.
        classes: of the data, in the order of the network's outputs.

    Returns:
        The tensors, and the rows. A head of another width than that of `trained` is omitted.

    Raises:
        WeightsError: the number of rows of a head is not that of the trained classes.
    """
    row_of = {normalize("NFC", name): row for row, name in enumerate(trained)}
    sources = [row_of.get(normalize("NFC", name)) for name in classes]
    rows = [row for row, source in enumerate(sources) if source is not None]
    taken = [source for source in sources if source is not None]
    matched, state = dict(tensors), model.state_dict()
    for path in heads:
        head = model.get_submodule(path)
        last = f"{path}.{len(head) - 1}." if isinstance(head, HeadStack) else f"{path}."
        for name in [name for name in tensors if name.startswith(last)]:
            own, given = state.get(name), matched.pop(name)
            if own is None or given.is_floating_point() != own.is_floating_point():
                continue
            if own.shape == (len(classes), *given.shape[1:]) and len(given) != len(trained):
                message = f"a model file names {len(trained):,} classes, and its {name} has "
                raise WeightsError(f"{message}{counted(len(given), 'row')}", "it is damaged")
            if given.shape == (len(trained), *own.shape[1:]):
                matched[name] = own.clone()
                matched[name][rows] = given[taken].to(own.dtype)
    return matched, HeadRows(
        tuple(name for name, source in zip(classes, sources, strict=True) if source is not None),
        tuple(name for name, source in zip(classes, sources, strict=True) if source is None),
        tuple(name for row, name in enumerate(trained) if row not in taken),
    )
