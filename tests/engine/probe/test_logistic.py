"""Linear probe: optimum, folds and class weights, against scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from zoo.engine.probe import standardize as standard
from zoo.engine.probe.folds import stratified_folds
from zoo.engine.probe.logistic import DEFAULT_STRENGTH, fit_probe
from zoo.errors import DataError, UsageError


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


@pytest.fixture
def small_chunks(monkeypatch):
    """Disable the in-memory copy, and limit chunks to a few rows."""
    monkeypatch.setattr(standard, "CACHE_BYTES", 0)
    monkeypatch.setattr(standard, "CHUNK_BYTES", 1 << 16)


def blobs(rows, width, classes, apart=1.0, seed=0):
    """Features of classes that overlap, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    middles = torch.randn(classes, width, generator=generator) * apart
    return middles[labels] + torch.randn(rows, width, generator=generator), labels


def logits(probe, features):
    return features.double() @ probe.weight.double().T + probe.bias.double()


def right(probe, features, labels):
    return float((logits(probe, features).argmax(1) == labels).double().mean())


def log_loss(probe, features, labels):
    return float(torch.nn.functional.cross_entropy(logits(probe, features), labels))


def objective(weight, bias, features, labels, strength, weights):
    """Return scikit-learn's objective."""
    log_probs = torch.log_softmax(torch.from_numpy(features @ weight.T + bias), 1).numpy()
    losses = -log_probs[np.arange(len(labels)), labels]
    return strength * (weights * losses).sum() + (weight**2).sum() / 2


CLASS_WEIGHTS = {"even": np.ones(10), "uneven": np.array([0.2, 3, 1, 1, 1, 5, 1, 1, 0.5, 1])}


@pytest.mark.parametrize("weighting", CLASS_WEIGHTS)
@pytest.mark.parametrize("strength", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("width", [64, 300])
def test_fit_probe_matches_scikit_learn_optimum(digits, strength, weighting, width):
    features, labels = digits
    if width == 300:  # more than twice as wide as there are rows
        generator = torch.Generator().manual_seed(0)
        features = (features[:140] @ torch.randn(64, width, generator=generator)).relu()
        labels = labels[:140]
    class_weight = CLASS_WEIGHTS[weighting]
    given = None if weighting == "even" else torch.from_numpy(class_weight)
    probe = fit_probe(features, labels, 10, strength=strength, class_weight=given)
    assert probe.converged

    scaler = StandardScaler().fit(features.double().numpy())
    scaled, known = scaler.transform(features.double().numpy()), labels.numpy()
    weights = class_weight[known] / class_weight[known].mean()
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000)
    theirs.fit(scaled, known, sample_weight=weights)

    raw = probe.weight.double().numpy()
    ours = (
        raw * np.where(scaler.var_ > 0, scaler.scale_, 0),
        raw @ scaler.mean_ + probe.bias.numpy(),
    )
    mine = objective(*ours, scaled, known, strength, weights)
    best = objective(theirs.coef_, theirs.intercept_, scaled, known, strength, weights)
    assert mine == pytest.approx(best, rel=1e-7)
    probabilities = logits(probe, features).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, theirs.predict_proba(scaled), atol=3e-4)
    assert probe.loss == pytest.approx(
        objective(0 * ours[0], 0, scaled, known, 0, weights)
        + float((weights * -np.log(probabilities[np.arange(len(known)), known])).mean()),
        rel=1e-4,
    )


def test_fit_probe_not_worse_than_logistic_regression_cv(digits):
    features, labels = digits
    ours, theirs, losses = [], [], []
    for split in range(3):
        # Few to train on, so that the strength matters.
        part = stratified_folds(labels, 6, seed=100 + split)
        train, test = (part == 0).nonzero()[:, 0], (part != 0).nonzero()[:, 0]
        probe = fit_probe(features, labels, 10, rows=train, seed=split)
        scaler = StandardScaler().fit(features[train].double().numpy())
        model = LogisticRegressionCV(
            Cs=10,
            cv=PredefinedSplit(stratified_folds(labels[train], 5, split).numpy()),
            scoring="accuracy",
            max_iter=300,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(scaler.transform(features[train].double().numpy()), labels[train].numpy())
        probabilities = model.predict_proba(scaler.transform(features[test].double().numpy()))
        ours.append(right(probe, features[test], labels[test]))
        theirs.append(float((probabilities.argmax(1) == labels[test].numpy()).mean()))
        known = probabilities[np.arange(len(test)), labels[test].numpy()]
        losses.append((log_loss(probe, features[test], labels[test]), float(-np.log(known).mean())))
    assert np.mean(ours) > 0.9
    assert np.mean(ours) >= np.mean(theirs) - 0.005
    mine, other = np.mean(losses, axis=0)
    assert mine <= other * 1.02


@pytest.mark.parametrize("heavy", [1.0, 20.0])
def test_searched_losses_match_held_out_folds(digits, heavy):
    features, labels = digits[0][:600], digits[1][:600]
    class_weight = torch.ones(10, dtype=torch.float64)
    class_weight[0] = heavy  # the easiest
    probe = fit_probe(features, labels, 10, seed=3, class_weight=class_weight)
    strengths = [strength for strength, _, _ in probe.searched]
    assert strengths == sorted(strengths)
    assert probe.strength == min(probe.searched, key=lambda tried: tried[1])[0]
    assert f"{len(strengths)} strengths in 5 folds" in probe.reason
    # The same, one fold at a time, with slightly different standardization of each.
    fold = stratified_folds(labels, 5, seed=3)
    shares, losses = [], torch.zeros(600, dtype=torch.float64)
    for number in range(5):
        out = fold == number
        # The strength multiplies a sum of losses, which has fewer terms in a fold.
        alone = fit_probe(
            features,
            labels,
            10,
            rows=(~out).nonzero()[:, 0],
            strength=probe.strength,
            class_weight=class_weight,
        )
        shares.append(right(alone, features[out], labels[out]))
        held_out = logits(alone, features[out])
        losses[out] = torch.nn.functional.cross_entropy(held_out, labels[out], reduction="none")
    assert probe.accuracy == pytest.approx(shares, abs=0.03)
    loss = next(tried[1] for tried in probe.searched if tried[0] == probe.strength)
    weights = class_weight[labels]
    expected = float((losses * weights).sum() / weights.sum())
    assert loss == pytest.approx(expected, rel=0.05)
    if heavy > 1:
        assert losses.mean() != pytest.approx(expected, rel=0.2)


def test_fit_probe_is_invariant_to_feature_scales():
    features, labels = blobs(400, 12, 4)
    plain = fit_probe(features, labels, 4)
    scales = torch.tensor([1e11, 1e-12] * 6)
    shifts = torch.tensor([1e11, 0, 3e11, 0, 0, 0] * 2)
    dead = torch.tensor([0.0, 7.0, 1e11]).expand(400, 3)
    absurd = torch.cat([features * scales + shifts, dead], dim=1)
    probe = fit_probe(absurd, labels, 4)
    assert bool(torch.isfinite(probe.weight).all() and torch.isfinite(probe.bias).all())
    assert not probe.weight[:, -3:].any()
    assert probe.strength == plain.strength
    output = torch.nn.functional.linear(absurd, probe.weight, probe.bias)
    np.testing.assert_allclose(output.double(), logits(plain, features), atol=1e-2, rtol=1e-2)
    assert float((output.argmax(1) == labels).float().mean()) > 0.75


def test_fit_probe_is_deterministic_by_seed(digits):
    features, labels = digits[0][:500], digits[1][:500]
    first, again, other = (fit_probe(features, labels, 10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert first.searched == again.searched
    assert first.searched != other.searched


def test_deal_folds_is_stratified():
    labels = torch.tensor([0] * 53 + [1] * 17 + [2] * 3 + [3])
    fold = stratified_folds(labels, 5, seed=0)
    assert fold[-1] == -1
    sizes = torch.bincount(fold[:-1])
    assert sizes.max() - sizes.min() <= 1
    for label in range(3):
        mine = torch.bincount(fold[labels == label], minlength=5)
        assert mine.max() - mine.min() <= 1
    assert torch.equal(fold, stratified_folds(labels, 5, seed=0))
    assert not torch.equal(fold, stratified_folds(labels, 5, seed=1))


def test_fit_probe_two_images_per_class():
    features = torch.tensor([[0.0, 1.0], [1.0, 1.5], [9.0, 1.2], [8.0, 1.1]])
    labels = torch.tensor([0, 0, 1, 1])
    probe = fit_probe(features, labels, 2)
    assert len(probe.accuracy) == 2
    assert right(probe, features, labels) == 1.0


def test_fit_probe_one_image_per_class_uses_default_strength():
    features, labels = blobs(3, 40, 3)
    probe = fit_probe(features, labels, 3)
    assert (probe.strength, probe.searched, probe.accuracy) == (DEFAULT_STRENGTH, (), ())
    assert "too few" in probe.reason
    assert right(probe, features, labels) == 1.0


def test_fit_probe_rare_and_absent_classes():
    features, labels = blobs(200, 8, 2, apart=3)
    features = torch.cat([features, torch.full((2, 8), 20.0), torch.full((1, 8), -20.0)])
    labels = torch.cat([labels, torch.tensor([2, 2, 4])])
    probe = fit_probe(features, labels, 6)
    assert right(probe, features, labels) > 0.97
    assert not probe.weight[[3, 5]].any()
    anywhere = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0)) * 100
    predicted = logits(probe, anywhere).argmax(1)
    assert not bool(((predicted == 3) | (predicted == 5)).any())
    assert float(probe.bias.abs().max()) < 100


def test_class_weight_zero_equals_absent_class(digits):
    features, labels = digits[0][:300], digits[1][:300]
    weight = torch.ones(10)
    weight[4] = 0
    probe = fit_probe(features, labels, 10, class_weight=weight)
    rows = (labels != 4).nonzero()[:, 0]
    assert torch.equal(probe.weight, fit_probe(features, labels, 10, rows=rows).weight)


def test_class_weights_are_scale_invariant(digits):
    features, labels = digits[0][:300], digits[1][:300]
    weight = torch.arange(1.0, 11.0)
    one, other = (fit_probe(features, labels, 10, class_weight=weight * by) for by in (1, 64))
    assert torch.equal(one.weight, other.weight)


def test_fit_probe_single_class():
    features, labels = blobs(5, 3, 1)
    probe = fit_probe(features, labels + 2, 4)
    assert "only one class" in probe.reason
    assert right(probe, features, labels + 2) == 1.0


def test_fit_probe_random_labels_selects_strong_regularisation():
    features = torch.randn(300, 50, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(300) % 3
    probe = fit_probe(features, labels, 3)
    assert probe.strength <= 0.01
    assert probe.strength == min(probe.searched, key=lambda tried: tried[1])[0]
    assert len(probe.searched) < 10
    assert min(loss for _, loss, _ in probe.searched) == pytest.approx(np.log(3), rel=0.02)


@pytest.mark.usefixtures("small_chunks")
def test_fit_probe_in_chunks_matches_in_memory(digits, monkeypatch):
    features, labels = digits
    chunked = fit_probe(features, labels, 10, strength=0.1)
    monkeypatch.undo()
    whole = fit_probe(features, labels, 10, strength=0.1)
    np.testing.assert_allclose(chunked.weight, whole.weight, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(chunked.bias, whole.bias, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["numpy", "half", "bfloat16", "memmap", "float64"])
def test_fit_probe_matrix_types(digits, kind, tmp_path):
    # Whole numbers up to 16 are the same in all of them.
    features, labels = digits[0][:400], digits[1][:400]
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(0))[:300]
    given = features
    if kind == "numpy":
        given = features.numpy()
    elif kind == "memmap":
        features.numpy().astype(np.float16).tofile(tmp_path / "features")
        given = np.memmap(tmp_path / "features", np.float16, "r", shape=(400, 64))
    else:
        given = features.to(getattr(torch, kind))
    probe = fit_probe(given, labels, 10, rows=rows)
    rows = rows.sort().values
    plain = fit_probe(features[rows], labels[rows], 10)
    assert torch.equal(probe.weight, plain.weight)
    assert probe.searched == plain.searched


def test_fit_probe_non_finite_features_raise(digits):
    features, labels = digits[0][:100].clone(), digits[1][:100]
    features[17, 5] = float("inf")
    with pytest.raises(DataError, match=r"feature 5 .* not finite"):
        fit_probe(features, labels, 10)


def test_fit_probe_invalid_arguments_raise(digits):
    features, labels = digits[0][:20], digits[1][:20]
    with pytest.raises(UsageError, match=r"\[20, 64\] are not those of 19"):
        fit_probe(features, labels[:19], 10)
    with pytest.raises(UsageError, match="not one of 3 classes"):
        fit_probe(features, labels, 3)
    with pytest.raises(UsageError, match="class weights"):
        fit_probe(features, labels, 10, class_weight=torch.ones(9))
    with pytest.raises(UsageError, match="1 folds"):
        fit_probe(features, labels, 10, folds=1)
    with pytest.raises(UsageError, match="no images"):
        fit_probe(features, labels, 10, rows=torch.empty(0, dtype=torch.long))


def test_views_of_an_image_share_a_fold():
    # Every image is its own cluster, its label drawn at random: nothing can be learned but by
    # meeting another view of the very image.
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 200, generator=generator)
    labels = torch.randint(2, (40,), generator=generator).repeat_interleave(3)
    views = images.repeat_interleave(3, dim=0) + 0.01 * torch.randn(120, 200, generator=generator)
    together = fit_probe(views, labels, 2, views=3)
    apart = fit_probe(views, labels, 2)
    assert sum(apart.accuracy) / 5 > 0.9
    assert sum(together.accuracy) / 5 < 0.75


@pytest.mark.parametrize("weighting", CLASS_WEIGHTS)
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_label_smoothing_matches_soft_targets_of_scikit_learn(digits, strength, weighting):
    """A smoothed target is one row for each class, weighted by its share."""
    features, labels = digits[0][:400], digits[1][:400]
    class_weight, share = CLASS_WEIGHTS[weighting], 0.2
    probe = fit_probe(
        features,
        labels,
        10,
        strength=strength,
        label_smoothing=share,
        class_weight=None if weighting == "even" else torch.from_numpy(class_weight),
    )
    assert probe.converged

    scaled = StandardScaler().fit_transform(features.double().numpy())
    targets = (1 - share) * np.eye(10)[labels.numpy()] + share / 10
    weights = targets * class_weight / class_weight[labels.numpy()].mean()
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=5000)
    theirs.fit(
        scaled.repeat(10, axis=0), np.tile(np.arange(10), 400), sample_weight=weights.ravel()
    )
    probabilities = logits(probe, features).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, theirs.predict_proba(scaled), atol=3e-4)
    smoothed = torch.nn.functional.cross_entropy(
        logits(probe, features),
        labels,
        torch.from_numpy(class_weight),
        label_smoothing=share,
    )
    assert probe.loss == pytest.approx(float(smoothed), rel=1e-4)


def test_label_smoothing_searches_strength_and_keeps_absent_classes():
    features, labels = blobs(200, 6, 2)
    probe = fit_probe(features, labels, 3, label_smoothing=0.3)
    assert len(probe.searched) > 1
    probabilities = logits(probe, features).softmax(1)
    # The bias is not penalised, so mean probabilities are the shares of the targets.
    assert probabilities.mean(0).tolist() == pytest.approx([0.45, 0.45, 0.1], abs=1e-3)
