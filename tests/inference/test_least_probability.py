"""`None of these` below a probability: in Python, as text, JSON and a table."""

import csv
import json

import pytest

import zoo
from tests.networks import save_untrained
from zoo.inference.least_probability import add_answers
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.tasks.classification.statistics import THRESHOLDS, answered_above

IMAGES = sorted((EMBEDDED / "val" / "flag").iterdir())[:4]


@pytest.fixture
def model(plainnet, tmp_path):
    classes = ["flag", "mammal", "zebra"]
    return save_untrained(plainnet, tmp_path / "model.safetensors", classes)


def test_improbable_image_is_none_of_these(model, cli, tmp_path):
    plain = zoo.predict(model, IMAGES, device="cpu")
    best = [answer["predictions"][0] for answer in plain]
    least = sorted(each["probability"] for each in best)[2]  # two below, itself not
    answers = zoo.predict(model, IMAGES, device="cpu", min_probability=least)
    expected = [each["class"] if each["probability"] >= least else None for each in best]
    assert expected.count(None) == 2
    assert [answer["answer"] for answer in answers] == expected
    assert [answer["predictions"] for answer in answers] == [a["predictions"] for a in plain]
    assert "answer" not in plain[0]
    command = ("predict", model, *IMAGES, "--device", "cpu", "--min-probability", least)
    _, out, _ = cli(*command)
    assert out.count("\n  none of these\n") == 2
    assert json.loads(cli(*command, "--json")[1]) == json.loads(json.dumps(answers))
    cli(*command, "--top", 1, "--csv", "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert [row["answer"] for row in rows] == [each or "" for each in expected]
    assert [row["class"] for row in rows] == [each["class"] for each in best]


@pytest.mark.parametrize("value", [-0.1, 1.5, "a lot", float("nan")])
def test_probability_outside_of_range_is_refused(model, cli, value):
    with pytest.raises(zoo.UsageError, match="min_probability is"):
        zoo.predict(model, IMAGES, device="cpu", min_probability=value)
    code, _, err = cli("predict", model, IMAGES[0], "--min-probability", value)
    assert code == 2 or value != value  # click has no opinion on nan, the predictor has
    assert "--min-probability" in err


def test_predictions_without_probabilities_are_refused():
    with pytest.raises(zoo.UsageError, match="of image-regression have no probabilities"):
        add_answers([{"predictions": [{"target": "x", "value": 1.0}]}], 0.5, "image-regression")


def test_answered_images_are_counted():
    confidences, correct = [0.2, 0.5, 0.62, 0.9, 0.995], [False, True, False, True, True]
    rows = answered_above(confidences, correct)
    for (least, answered, right), threshold in zip(rows, THRESHOLDS, strict=True):
        kept = [c for p, c in zip(confidences, correct, strict=True) if p >= threshold]
        assert (least, answered, right) == (threshold, len(kept), kept.count(True))
    assert rows[0][1:] == (5, 3)
    assert rows[-1][1:] == (1, 1)
