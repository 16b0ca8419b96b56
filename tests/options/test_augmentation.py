"""Augmentations: parsing and text."""

import random

import pytest

import zoo
from zoo.options import Augmentation
from zoo.options.augmentation import STRENGTHS


def test_parse_preserves_order():
    augmentation = Augmentation.parse("crop:0.5, flip,rotate:10,trivial")
    assert augmentation.steps == (("crop", 0.5), ("flip", 0.5), ("rotate", 10.0), ("trivial", 0.0))
    assert str(augmentation) == "crop:0.5,flip:0.5,rotate:10,trivial"
    assert Augmentation.parse("crop,flip").steps == (("crop", 0.08), ("flip", 0.5))


def test_parse_none_is_empty():
    assert Augmentation.parse("none") == Augmentation(())
    assert not Augmentation.parse("none")
    assert str(Augmentation()) == "none"
    assert Augmentation.parse("flip")


def test_strength_round_trip_is_exact():
    draw = random.Random(0)
    for _ in range(200):
        names = draw.sample([*STRENGTHS], draw.randint(0, len(STRENGTHS)))
        steps = tuple(
            (name, known[1] * (1 - draw.random()) if (known := STRENGTHS[name]) else 0.0)
            for name in names
        )
        assert Augmentation.parse(str(Augmentation(steps))) == Augmentation(steps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crp", "did you mean crop"),
        ("resnet18", "there are crop, flip"),
        ("flip,flip", "twice"),
        ("crop:2", "up to 1"),
        ("rotate:0", "above 0"),
        ("color:much", "give a number"),
        ("trivial:3", "no strength"),
        ("", "no augmentation"),
    ],
)
def test_parse_malformed_text_is_refused(text, message):
    with pytest.raises(zoo.UsageError, match=message):
        Augmentation.parse(text)
