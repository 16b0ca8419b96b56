"""Names of splits, classes and files: how they are read, compared and ordered, for every task."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

# Words for a split, in names of folders, columns, values and keys.
SPLITS = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLER = "(?:data|sets?|splits?|images?|imgs?|photos?|pictures?|pics?|files?|folders?)*"
_SPLIT = re.compile(rf"{_FILLER}({'|'.join(sorted(SPLITS, reverse=True))}){_FILLER}((19|20)\d\d)?")
_SEPARATORS = re.compile(r"[\W_]+")
_WORDS = re.compile(r"[^\W\d_]+")


def relative_path(path: str, root: Path | str | None) -> str:
    """Return a path relative to the root of its data set, for notices; any other unchanged."""
    return path if root is None else path.removeprefix(f"{root}{os.sep}")


def split_of(name: str) -> str | None:
    """Return the split that a name stands for, such as `Training`, `test_set` or `val2017`.

    Returns:
        `train`, `val` or `test`; None for any other name.
    """
    match = _SPLIT.fullmatch(_SEPARATORS.sub("", name.casefold()))
    return SPLITS[match[1]] if match else None


def affixed_split(name: str) -> tuple[str, str] | None:
    """Return split and rest of a name with one word for a split: `seg_train` is `train`, `seg`.

    Numbers are no words: `01_train` is `train` and "".

    Returns:
        None for a name without such a word, and for one that is no more than that.
    """
    words = _WORDS.findall(name.casefold())
    splits = [(split, at) for at, word in enumerate(words) if (split := split_of(word))]
    if len(splits) != 1 or split_of(name):
        return None
    (split, position) = splits[0]
    return split, " ".join(words[:position] + words[position + 1 :])


def nfc(name: str) -> str:
    """Return a name with accents composed (NFC), as most systems write it; macOS decomposes them.

    Two spellings of a name that look the same are equal after it.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def positions(names: Iterable[str]) -> Mapping[str, int]:
    """Return the index of each name by its NFC form."""
    return {nfc(name): index for index, name in enumerate(names)}


def sort_classes(names: Iterable[str]) -> list[str]:
    """Sort class names, by value if all of them are integers, else as text."""
    names = list(names)
    digits = [name.removeprefix("-") for name in names]
    if all(number.isascii() and number.isdigit() and len(number) < 19 for number in digits):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
