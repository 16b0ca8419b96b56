"""Learning rate schedules: a factor as a pure function of progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.errors import UsageError, did_you_mean
from zoo.options.formatting import shortest

KINDS = ("constant", "step", "cosine")
FORMS = "constant, step:7,0.1 or cosine:0.1"


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate, called with the progress of a phase.

    Args:
        kind: `constant`; `step`, times `gamma` every `size` epochs; or `cosine`, a linear warm-up
            over the fraction `warmup` of the steps, then half a cosine down to 0 (SGDR without
            restarts, arXiv 1608.03983).
        size: epochs, for `step`.
        gamma: in (0, 1], for `step`.
        warmup: in [0, 1), for `cosine`.
    """

    kind: str = "constant"
    size: int = 7
    gamma: float = 0.1
    warmup: float = 0.1

    def __str__(self) -> str:
        match self.kind:
            case "step":
                return f"step:{self.size},{shortest(self.gamma)}"
            case "cosine":
                return f"cosine:{shortest(self.warmup)}"
        return self.kind

    def __call__(self, progress: float, epoch: int) -> float:
        """Return the factor.

        Args:
            progress: completed fraction of the phase's steps, in 0..1.
            epoch: completed epochs of the phase.
        """
        match self.kind:
            case "step":
                return self.gamma ** (epoch // self.size)
            case "cosine" if progress < self.warmup:
                return progress / self.warmup
            case "cosine":
                angle = math.pi * (progress - self.warmup) / (1 - self.warmup)
                return 0.5 * (1 + math.cos(angle))
        return 1.0

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse a schedule.

        Args:
            text: `constant`; `step:SIZE,GAMMA`, by default `step:7,0.1`; `cosine:WARMUP`, by
                default `cosine:0.1`.

        Raises:
            UsageError: it is malformed.
        """
        kind, colon, rest = text.partition(":")
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS, f"one of {', '.join(KINDS)}")
            raise UsageError(f"no schedule is named {kind!r}", hint)
        try:
            schedule = cls(kind)
            if kind == "step" and colon:
                size, gamma = rest.split(",")
                schedule = cls(kind, size=int(size), gamma=float(gamma))
            elif kind == "cosine" and colon:
                schedule = cls(kind, warmup=float(rest))
            elif colon:
                raise ValueError
            if schedule.size < 1 or not 0 < schedule.gamma <= 1 or not 0 <= schedule.warmup < 1:
                raise ValueError
        except ValueError:
            raise UsageError(f"{text!r} is not a schedule", f"write {FORMS}") from None
        return schedule
