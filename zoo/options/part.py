"""Part I of N of a sequence: the share of one of several jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from zoo.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, counted from 1: items `number - 1`, `number - 1 + count`, ..."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: object) -> Part:
        """Parse `I/N`.

        Raises:
            UsageError: it is not of this form, or I is not in 1 to N.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(text).strip(), re.ASCII)
        part = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= part.number <= part.count:
            raise UsageError(
                f"--part {text} is no part", "give I/N with I from 1 to N, such as 1/8"
            )
        return part

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this part of the items."""
        return items[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
