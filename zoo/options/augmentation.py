"""Augmentation: random transforms of training images."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError, did_you_mean
from zoo.options.formatting import shortest

# By name: the default and the largest strength; None without a strength. `crop` and `flip` are the
# defaults of Inception's training, arXiv 1409.4842; `trivial` is TrivialAugment Wide, arXiv
# 2103.10158; `erase` arXiv 1708.04896.
STRENGTHS: dict[str, tuple[float, float] | None] = {
    "crop": (0.08, 1.0),
    "flip": (0.5, 1.0),
    "vflip": (0.5, 1.0),
    "rotate": (15.0, 180.0),
    "color": (0.2, 1.0),
    "trivial": None,
    "erase": (0.25, 1.0),
}
FORMS = "write names like crop,flip or crop:0.5,flip,rotate:10"


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of training images, in this order; false without any.

    Args:
        steps: name and strength of each.
    """

    steps: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __str__(self) -> str:
        parts = (
            name if STRENGTHS[name] is None else f"{name}:{shortest(strength)}"
            for name, strength in self.steps
        )
        return ",".join(parts) or "none"

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Parse an augmentation.

        Args:
            text: names separated by commas, each with an optional strength after a colon: `crop`
                (a random crop, of at least this fraction of the area), `flip` and `vflip` (with
                this probability), `rotate` (by up to this many degrees), `color` (brightness,
                contrast and saturation jitter by up to this fraction), `trivial` (TrivialAugment)
                and `erase` (random erasing, with this probability); `none` for none.

        Raises:
            UsageError: a name or strength is invalid.
        """
        if text == "none":
            return cls()
        steps: list[tuple[str, float]] = []
        for part in text.split(","):
            name, colon, value = part.strip().partition(":")
            if name not in STRENGTHS:
                raise UsageError(
                    f"no augmentation is named {name!r}",
                    did_you_mean(name, [*STRENGTHS], f"{FORMS}; there are {', '.join(STRENGTHS)}"),
                )
            if name in dict(steps):
                raise UsageError(f"--augment names {name} twice", FORMS)
            steps.append((name, _strength(name, value if colon else None)))
        return cls(tuple(steps))


def _strength(name: str, text: str | None) -> float:
    strengths = STRENGTHS[name]
    if strengths is None:
        if text is not None:
            raise UsageError(f"--augment {name} has no strength", FORMS)
        return 0.0
    default, largest = strengths
    if text is None:
        return default
    try:
        value = float(text)
        if not 0 < value <= largest:
            raise ValueError
    except ValueError:
        hint = f"give a number above 0, up to {largest:g}"
        raise UsageError(f"--augment {name}:{text}", hint) from None
    return value
