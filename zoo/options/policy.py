"""Policies: which parameters of a network train."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError

FORMS = "head, all, stages:N or module patterns like layer4,fc"


@dataclass(frozen=True)
class Policy:
    """Which parameters train, in addition to the heads.

    Args:
        kind: `head`, `all`, `stages` or `modules`.
        stages: how many of the last stages, for `stages`.
        patterns: shell-style patterns of dotted module paths, for `modules`.
    """

    kind: str
    stages: int = 0
    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case "stages":
                return f"stages:{self.stages}"
            case "modules":
                return ",".join(self.patterns)
        return self.kind

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Parse a policy.

        Args:
            text: `head`; `all`; `stages:N`, the last N stages; or module patterns separated by
                commas, in which `classifier[6]` is the same as `classifier.6`.

        Raises:
            UsageError: it is malformed.
        """
        if text.strip() in ("head", "all"):
            return cls(text.strip())
        kind, colon, count = text.partition(":")
        if colon:
            if kind != "stages" or not count.isdecimal() or int(count) < 1:
                raise UsageError(f"{text!r} is not a policy", f"give {FORMS}, N from 1")
            return cls("stages", stages=int(count))
        parts = (part.strip() for part in text.split(","))
        patterns = tuple(part.replace("[", ".").replace("]", "") for part in parts)
        if not all(patterns):
            raise UsageError(f"{text!r} is not a policy", f"give {FORMS}")
        return cls("modules", patterns=patterns)


HEAD = Policy("head")
