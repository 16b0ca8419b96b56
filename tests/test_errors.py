"""Texts of messages."""

import pytest

from zoo.errors import UsageError, counted, one_line


def test_error_keeps_spaces_and_is_one_line():
    error = UsageError("my  runs/a\nb is not a run", "give another  one")
    assert str(error) == r"my  runs/a\nb is not a run; give another  one"
    assert one_line(ValueError("of a:\n\t b  c\n\n\td")) == "ValueError: of a: b  c d"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1200, "image", "1,200 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
    ],
)
def test_counted_spells_the_plural(number, noun, text):
    assert counted(number, noun) == text
    assert counted(number, noun, "other") == (text if number == 1 else f"{number:,} other")
