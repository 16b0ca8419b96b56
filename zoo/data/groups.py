"""Groups of images, such as those of one patient, which stay on one side of a split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from zoo.data.names import nfc
from zoo.data.scan import shorten
from zoo.errors import DataError, counted
from zoo.seeding import ranked_by_name


def groups_by(expression: str, paths: Iterable[str], source: object) -> dict[str, str]:
    """Return the group of each path: the first group of the pattern in it, or what it matches.

    Args:
        expression: a regular expression, searched in each path.
        paths: of images, relative to the data.
        source: of the images, for messages.

    Raises:
        DataError: the pattern does not match a path; lists some.
    """
    pattern = re.compile(expression)
    groups: dict[str, str] = {}
    without = []
    for path in paths:
        match = pattern.search(nfc(path))
        group = match and (match[1] if pattern.groups else match[0])
        if group:
            groups[path] = group
        else:
            without.append(path)
    if without:
        images = counted(len(without), "image")
        message = f"--group-by {expression} finds no group in {images} of {source}"
        raise DataError(message, f"the paths are {shorten(without, 3)}")
    return groups


def draw_held_out_groups(
    groups: Sequence[str], classes: Sequence[object], seed: int, fraction: float
) -> set[int]:
    """Draw whole groups to hold out, so that about a share of each class is.

    Groups are taken in the order of a hash of seed and name while they bring the numbers of images
    of the classes nearer to the share. A class keeps an image to train, and where it is in several
    groups, at least one is held out if possible.

    Args:
        groups: of each image.
        classes: of each image.
        seed: of the draw.
        fraction: share to hold out.

    Returns:
        Indices of images; empty if there are fewer than two groups.
    """
    counts: dict[str, Counter[object]] = defaultdict(Counter)
    for group, label in zip(groups, classes, strict=True):
        counts[group][label] += 1
    totals = Counter(classes)
    names, chosen = sorted(counts), set[str]()
    order = [names[index] for index in ranked_by_name(names, seed)]
    held_out: Counter[object] = Counter()

    def gain(group: str) -> float:
        """Return by how much the squared distance to the share decreases, relative to classes."""
        return sum(
            (
                (held_out[c] - fraction * totals[c]) ** 2
                - (held_out[c] + n - fraction * totals[c]) ** 2
            )
            / totals[c]
            for c, n in counts[group].items()
        )

    def fits(group: str) -> bool:
        return all(held_out[c] + n < totals[c] for c, n in counts[group].items())

    def take(group: str) -> None:
        chosen.add(group)
        held_out.update(counts[group])

    for group in order:
        if fits(group) and gain(group) > 0:
            take(group)
    for label in totals:
        rest = [group for group in order if group not in chosen and label in counts[group]]
        rest = [group for group in rest if fits(group)]
        if not held_out[label] and rest:
            take(min(rest, key=lambda group: counts[group].total()))
    return {index for index, group in enumerate(groups) if group in chosen}


def check_sides(parts: Mapping[str, Iterable[str]], source: object) -> None:
    """Check that no group is in two splits.

    Args:
        parts: groups of the images of each split.
        source: of the images, for messages.

    Raises:
        DataError: there are such groups; lists some for the first two splits that share any.
    """
    sets = {name: set(groups) for name, groups in parts.items()}
    names = list(sets)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            if shared := sorted(sets[first] & sets[second]):
                groups = counted(len(shared), "group is", "groups are")
                message = f"{source}: {groups} in both {first} and {second}: {shorten(shared)}"
                raise DataError(message, "move them to one side, or give data without splits")
