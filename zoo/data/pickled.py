"""Reading the pickles that CIFAR was published as, without unpickling them.

A pickle is a program, and unpickling runs it. Allowing an unpickler the names that these files
need would still call numpy's constructors on arguments of a stranger's choice: arrays of objects,
sizes that fill the memory, states that numpy does not expect. So nothing is run here. The file is
taken apart into its opcodes, the few that hold numbers, texts and containers are followed, and the
forms in which numpy writes an array of bytes are recognised and read as data. No name of the file
is imported, nothing of it is called, and anything else in it is refused.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Twice what the largest of CIFAR's files needs, however it is written. Each may take memory that
# the size of the file does not tell.
MAX_OPCODES = 1_000_000

# What the names that such files hold stand for; old and new numpy write different ones.
_NAMES = {
    "numpy.core.multiarray _reconstruct": "empty array",
    "numpy._core.multiarray _reconstruct": "empty array",
    "numpy.core.numeric _frombuffer": "array",
    "numpy._core.numeric _frombuffer": "array",
    "numpy ndarray": "array type",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}

# fmt: off
_CONSTANTS = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})
# fmt: on
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotPlain(ValueError):
    """A pickle that is damaged, or holds more than numbers, texts, containers and bytes."""


class PickledArray:
    """An array of uint8 in a pickle; `values` is None until the file has given its bytes."""

    values: NDArray[np.uint8] | None = None

    def fill(self, shape: Any, order: str, content: Any) -> None:
        """Read the bytes as an array of that shape."""
        sound = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
        data = raw(content)
        if not sound or len(shape) > 8 or math.prod(shape) != len(data):
            raise NotPlain(f"it has an array whose shape does not fit its {len(data):,} bytes")
        flat = np.frombuffer(data, np.uint8)
        self.values = flat.reshape(shape, order="F" if order == "F" else "C")


class _Named(str):
    """What a name of the file stands for, which is not a text of the file."""

    __slots__ = ()


def read_pickle(data: bytes) -> Any:
    """Read a pickle of numbers, texts, lists, tuples, dicts and arrays of uint8.

    Args:
        data: the whole file, of protocol 2 to 5.

    Returns:
        What it holds; the keys of dicts as str, arrays as `PickledArray`. A text that Python 2
        wrote is bytes; `text` takes either.

    Raises:
        NotPlain: it is damaged, or holds anything else.
    """
    reader = _Reader()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number == MAX_OPCODES:
                raise NotPlain(f"it has more than {MAX_OPCODES:,} opcodes")
            if opcode.name == "STOP":
                return reader.pop()
            reader.follow(opcode.name, argument)
    except NotPlain:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise NotPlain(f"it is damaged ({' '.join(str(error).split())[:80]})") from error
    raise NotPlain("it is cut off")


def raw(value: Any) -> bytes:
    """Return a value of a pickle that must be bytes.

    Raises:
        NotPlain: it is something else.
    """
    if not isinstance(value, (bytes, bytearray)):
        what = "a name" if isinstance(value, _Named) else type(value).__name__
        raise NotPlain(f"it has {what} where bytes belong")
    return bytes(value)


def text(value: Any) -> str:
    """Return the text that a value of a pickle stands for, whichever Python wrote it.

    Raises:
        NotPlain: it stands for none.
    """
    try:
        if type(value) is str:
            value.encode()
            return value
        return raw(value).decode()
    except UnicodeError as error:
        raise NotPlain("it has a text that is not UTF-8") from error


class _Reader:
    """Follows opcodes on a stack of plain values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Take the topmost value."""
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        above, self._stack = self._stack, self._below.pop()
        return above

    def follow(self, name: str, argument: Any) -> None:
        """Follow one opcode.

        Raises:
            NotPlain: it is none that such a file needs.
            LookupError, TypeError: the stack does not hold what it needs.
        """
        push = self._stack.append
        if name in _CONSTANTS:
            push(argument)
        elif name in ("BINSTRING", "SHORT_BINSTRING"):
            push(argument.encode("latin-1"))
        elif name in _FIXED:
            push(_FIXED[name])
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            push(tuple(reversed(values)))
        elif name in ("BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name == "GLOBAL":
            self._name(argument)
        elif name in _HANDLERS:
            _HANDLERS[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise NotPlain(f"it has the opcode {name}, which images and labels do not need")

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _empty_list(self) -> None:
        self._stack.append([])

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _tuple(self) -> None:
        values = tuple(self._pop_mark())
        self._stack.append(values)

    def _append(self) -> None:
        self._extend([self.pop()])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise NotPlain("it appends to what is no list")
        self._stack[-1].extend(values)

    def _setitem(self) -> None:
        value = self.pop()
        self._update([self.pop(), value])

    def _setitems(self) -> None:
        self._update(self._pop_mark())

    def _update(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or len(values) % 2:
            raise NotPlain("it sets items of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # As text, so that no key of the file's making is ever hashed or compared.
            name = text(key)
            if name in self._stack[-1]:
                raise NotPlain(f"it has {name[:40]!r} twice")
            self._stack[-1][name] = value

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise NotPlain(f"it names {name.replace(' ', '.')[:80]}, which is not read")
        self._stack.append(_Named(_NAMES[name]))

    def _stack_global(self) -> None:
        name = self.pop()
        self._name(f"{text(self.pop())} {text(name)}")

    def _reduce(self) -> None:
        arguments, name = self.pop(), self.pop()
        known = name if isinstance(name, _Named) else ""
        match known, arguments:
            case "encode", (str(value), "latin1"):
                self._stack.append(value.encode("latin-1"))
            case "dtype", (kind, _, _) if text(kind) in ("u1", "|u1", "uint8"):
                self._stack.append(_Named("uint8"))
            case "dtype", _:
                raise NotPlain("it has an array of another type than uint8")
            case "empty array", (_Named("array type"), _, _):
                self._stack.append(PickledArray())
            case "array", (content, _Named("uint8"), shape, "C" | "F" as order):
                array = PickledArray()
                array.fill(shape, order, content)
                self._stack.append(array)
            case _:
                raise NotPlain("it calls what images and labels do not need")

    def _build(self) -> None:
        state = self.pop()
        built = self._stack[-1]
        match state:
            case (_, shape, _Named("uint8"), bool(fortran), content) if (
                isinstance(built, PickledArray) and built.values is None
            ):
                built.fill(shape, "F" if fortran else "C", content)
            # What more a dtype says of itself: the order of a single byte.
            case (_, *_) if isinstance(built, _Named) and built == "uint8":
                pass
            case _:
                raise NotPlain("it sets the state of what is no array of uint8")


_HANDLERS: dict[str, Callable[[_Reader], None]] = {
    "MARK": _Reader._mark,
    "EMPTY_LIST": _Reader._empty_list,
    "EMPTY_DICT": _Reader._empty_dict,
    "TUPLE": _Reader._tuple,
    "APPEND": _Reader._append,
    "APPENDS": _Reader._appends,
    "SETITEM": _Reader._setitem,
    "SETITEMS": _Reader._setitems,
    "STACK_GLOBAL": _Reader._stack_global,
    "REDUCE": _Reader._reduce,
    "BUILD": _Reader._build,
}
