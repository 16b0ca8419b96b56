"""Heads: parsing, text and plain data."""

import random

import pytest

import zoo
from zoo.options import HeadSpec


@pytest.mark.parametrize(
    ("text", "hidden", "dropout"),
    [
        (None, (), 0.0),
        ("linear", (), 0.0),
        ("mlp:512", (512,), 0.0),
        ("mlp:4096,dropout=0.5", (4096,), 0.5),
        ("mlp:64,32,dropout=0.25", (64, 32), 0.25),
    ],
)
def test_text_round_trip(text, hidden, dropout):
    head = HeadSpec.parse(text)
    assert (head.hidden, head.dropout, head.at) == (hidden, dropout, None)
    assert str(head) == (text or "linear")
    assert HeadSpec.from_dict(head.to_dict()) == head


def test_dropout_round_trip_is_exact():
    draw = random.Random(0)
    for _ in range(200):
        hidden = tuple(draw.randint(1, 4096) for _ in range(draw.randint(1, 8)))
        head = HeadSpec(hidden, draw.random() * 10 ** -draw.randint(0, 9))
        assert HeadSpec.parse(str(head)) == head


def test_parse_at_normalizes_module_path():
    assert HeadSpec.parse("mlp:8", "classifier[6]").at == "classifier.6"
    assert not HeadSpec.parse(None, "classifier").plain
    with pytest.raises(zoo.UsageError, match="not a module path"):
        HeadSpec.parse(None, "classifier[")


@pytest.mark.parametrize(
    "text", ["mlp", "mlp:", "mlp:0", "mlp:a", "mlp:8,dropout=1", "mlp:8,drop=0.5", "lstm:8", ""]
)
def test_parse_malformed_text_is_refused(text):
    with pytest.raises(zoo.UsageError, match="write linear, mlp:512"):
        HeadSpec.parse(text)
