"""Held-out images of one class."""

import pytest

from zoo.data.split import draw_held_out


def drawn(count: int, fraction: float) -> set[int]:
    return draw_held_out([f"{number}.png" for number in range(count)], 0, fraction)


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"),
    [
        *((2, 0.2, 1), (4, 0.2, 1), (8, 0.2, 2), (12, 0.2, 2), (13, 0.2, 3), (100, 0.2, 20)),
        *((9, 0.01, 1), (9, 0.99, 8), (2, 0.99, 1)),
    ],
)
def test_share_is_rounded_and_leaves_an_image_on_both_sides(count, fraction, held_out):
    assert len(drawn(count, fraction)) == held_out


def test_larger_share_contains_the_smaller():
    assert drawn(40, 0.1) < drawn(40, 0.25) < set(range(40))


def test_accents_are_composed_before_the_draw():
    names = [f"e\u0301{number}.png" for number in range(20)]
    composed = [name.replace("e\u0301", "\u00e9") for name in names]
    assert draw_held_out(names, 0, 0.3) == draw_held_out(composed, 0, 0.3)
