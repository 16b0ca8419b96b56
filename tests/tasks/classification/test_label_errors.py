"""Confident learning against plain loops by the paper's definition."""

import torch

from zoo.tasks.classification.label_errors import probable_errors
from zoo.tasks.classification.report_findings import expected_gain, power_law


def by_definition(probabilities, labels):
    """Return rows off the diagonal of the confident joint (Northcutt et al., 2021, eq. 1)."""
    classes = len(probabilities[0])
    thresholds = []
    for k in range(classes):
        own = [row[k] for row, label in zip(probabilities, labels, strict=True) if label == k]
        thresholds.append(sum(own) / len(own) if own else None)
    found = {}
    for index, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [k for k in range(classes) if thresholds[k] and row[k] >= thresholds[k]]
        if confident:
            best = max(confident, key=lambda k: row[k])
            if best != label:
                found[index] = best
    return found


def test_label_errors_equal_definition_in_loops():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(4, (400,), generator=generator)
    logits = 5 * torch.eye(5)[true] + torch.randn(400, 5, generator=generator)
    labels = true.clone()
    flipped = torch.randperm(400, generator=generator)[:30]
    labels[flipped] = (labels[flipped] + 1) % 4
    probabilities = logits.double().softmax(1)
    found = probable_errors(probabilities, labels)
    assert dict(found) == by_definition(probabilities.tolist(), labels.tolist())
    margins = [float(probabilities[r, labels[r]] - probabilities[r, o]) for r, o in found]
    assert margins == sorted(margins)
    # Most of the flipped labels are among them.
    assert len(set(flipped.tolist()) & {row for row, _ in found}) >= 24


def test_label_errors_of_confident_labels_are_none():
    labels = torch.arange(3).repeat(4)
    assert probable_errors(torch.eye(3)[labels] * 0.9 + 0.03, labels) == []


def test_power_law_is_recovered_and_extrapolated():
    law = power_law([(n, 3 * n**-0.4) for n in (50, 100, 200, 400)])
    assert law is not None
    assert abs(law[0] - 3) < 1e-9
    assert abs(law[1] - 0.4) < 1e-9
    growth = [[n, [1 - 3 * n**-0.4]] for n in (50, 100, 200, 400)]
    gain = expected_gain(growth, 100)
    assert gain is not None
    assert abs(gain - 3 * (400**-0.4 - 500**-0.4)) < 1e-9
    assert expected_gain([[50, [0.5]], [100, [0.5]], [200, [0.5]]]) is None
    assert power_law([(50, 0.0), (100, 0.1), (200, 0.05)]) is None
