"""Labels of a table: cells that name several classes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

# The first ones rarely occur inside the name of one class; None is whitespace.
LISTS = ("|", ";", ",")
SEPARATORS = (*LISTS, "/", "+", "&", None)
# Share of the labels of three words or more that are made of others, from which words are labels.
MOST = 1 / 3


def several_labels(labels: Collection[str]) -> list[str]:
    """Return the labels that name several classes, such as `cat,dog` beside `cat` and `dog`.

    Words of a label are classes if each is a label itself, or if labels are made of one another,
    as `haze primary water` is of `haze primary` and `primary water`.

    Args:
        labels: all labels of a table.
    """
    return [label for label in labels if _is_list(label)] or [*_combined(labels)]


def _is_list(label: str) -> bool:
    if not label.startswith("["):
        return False
    try:
        return isinstance(json.loads(label.replace("'", '"')), list)
    except ValueError:
        return False


def _combined(labels: Collection[str]) -> Iterator[str]:
    for separator in SEPARATORS:
        parts = {label: _parts(label, separator) for label in labels}
        sets = set(parts.values())
        several = [label for label in labels if len(parts[label]) > 1]
        alone = [
            label for label in several if all(frozenset((part,)) in sets for part in parts[label])
        ]
        longer = [label for label in several if len(parts[label]) > 2]
        overlapping = [
            label
            for label in longer
            if sum(parts[label] - {part} in sets for part in parts[label]) > 1
        ]
        words = set().union(*(parts[label] for label in several)) if several else set()
        fewer = separator in LISTS and 0 < len(words) <= len(several)
        if fewer:
            yield from several
        elif alone or len(overlapping) > max(1, MOST * len(longer)):
            yield from dict.fromkeys(alone + overlapping)
        else:
            continue
        return


def _parts(label: str, separator: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in label.split(separator) if part.strip())
