"""The penalty of a probe by a metric of held-out predictions, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.data.schema import Schema
from zoo.engine.probe.folds import stratified_folds
from zoo.engine.probe.logistic import STRENGTHS, fit_probe
from zoo.engine.probe.phase import MetricScore
from zoo.tasks.base import Ranking
from zoo.tasks.classification.task import ImageClassification

SCORES = {
    "top1": lambda labels, probabilities: accuracy_score(labels, probabilities.argmax(1)),
    "balanced_accuracy": lambda labels, probabilities: balanced_accuracy_score(
        labels, probabilities.argmax(1)
    ),
    "loss": lambda labels, probabilities: -log_loss(labels, probabilities),
}


@pytest.fixture(scope="module")
def uneven():
    """Features of three overlapping classes of 150, 20 and 10 rows."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 150 + [1] * 20 + [2] * 10)
    middles = torch.randn(3, 6, generator=generator) / 2
    return middles[labels] + torch.randn(180, 6, generator=generator), labels


def held_out_probabilities(features, labels, strength, fold):
    scaled = StandardScaler().fit_transform(features.double().numpy())
    probabilities = np.zeros((len(labels), 3))
    for number in range(5):
        out = (fold == number).numpy()
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=2000)
        model.fit(scaled[~out], labels.numpy()[~out])
        probabilities[out] = model.predict_proba(scaled[out])
    return probabilities


def probe_by(name, features, labels, classes=3, **options):
    task, schema = ImageClassification(), Schema(tuple("abcdef"[:classes]))
    ranking = Ranking(name, task.directions[name])
    return fit_probe(
        features,
        labels,
        classes,
        new_score=lambda: MetricScore(task.metric(schema, torch.device("cpu")), ranking),
        **options,
    )


@pytest.mark.parametrize("name", SCORES)
def test_strength_by_metric_matches_scikit_learn(uneven, name):
    features, labels = uneven
    strengths = (1e-3, 1e-2, 0.1, 1.0, 10.0)
    fold = stratified_folds(labels, 5, seed=0)
    scores = [
        SCORES[name](labels, held_out_probabilities(features, labels, strength, fold))
        for strength in strengths
    ]
    probe = probe_by(name, features, labels, strengths=strengths)
    assert [strength for strength, _, _ in probe.searched] == list(strengths)
    assert probe.strength == strengths[int(np.argmax(scores))]
    assert probe.reason == f"best held-out {name} of 5 strengths in 5 folds"


def test_metrics_select_different_strengths(uneven):
    features, labels = uneven
    by_loss = fit_probe(features, labels, 3)
    by_balance = probe_by("balanced_accuracy", features, labels)
    assert by_balance.strength > by_loss.strength
    assert len(by_balance.searched) == len(STRENGTHS)
    again = fit_probe(features, labels, 3, strength=by_balance.strength)
    assert torch.allclose(by_balance.weight, again.weight, rtol=1e-3, atol=1e-4)


def test_metric_of_classes_without_images_is_finite(uneven):
    features, labels = uneven
    probe = probe_by("top5", features, 2 * labels, classes=6, strengths=(0.1, 1.0))
    # Rank 5 of 6 classes never excludes one of the three with images; the loss decides.
    assert probe.strength == fit_probe(features, labels, 3, strengths=(0.1, 1.0)).strength


def test_select_reaches_the_probe(image_folder, tmp_path):
    run = zoo.finetune(
        "lite0", data=image_folder, device="cpu", select="balanced_accuracy", out=tmp_path / "run"
    )
    assert run.record["plan"]["recipe"] == "probe"
    expected = f"best held-out balanced_accuracy of {len(STRENGTHS)} strengths in 5 folds"
    assert run.record["probe"]["reason"] == expected
