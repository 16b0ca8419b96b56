"""Standardized features: chunks, and conversion of weights to raw features."""

import numpy as np
import pytest
import torch

from zoo.engine.probe import standardize as standard
from zoo.engine.probe.standardize import StandardizedFeatures
from zoo.errors import DataError

CPU = torch.device("cpu")


def random(rows, width, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def whole(standardised, dtype=torch.float32, logits=1):
    """Concatenate all chunks, and check that their slices are contiguous."""
    spans, parts = zip(*standardised.chunks(dtype, logits), strict=True)
    ends = [0, *(span.stop for span in spans)]
    assert [span.start for span in spans] == ends[:-1]
    assert ends[-1] == standardised.count
    return torch.cat(parts)


@pytest.fixture
def no_memory_cache(monkeypatch):
    monkeypatch.setattr(standard, "CACHE_BYTES", 0)
    monkeypatch.setattr(standard, "CHUNK_BYTES", 4096)


def expect(features):
    exact = features.double().numpy()
    return (exact - exact.mean(0)) / exact.std(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_have_mean_0_and_deviation_1(dtype):
    features = (random(500, 7) + 3) * torch.logspace(-6, 6, 7)
    actual = whole(StandardizedFeatures(features, None, CPU), dtype)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, expect(features), atol=2e-5)


@pytest.mark.usefixtures("no_memory_cache")
def test_chunks_without_memory_cache():
    features = random(500, 7) + 1000
    features[250:] += 50  # a mean that differs from chunk to chunk
    standardised = StandardizedFeatures(features, None, CPU)
    assert len(list(standardised.chunks(torch.float32, 1))) > 3
    np.testing.assert_allclose(whole(standardised), expect(features), atol=2e-4)
    more = len(list(standardised.chunks(torch.float32, logits=64)))
    assert more > len(list(standardised.chunks(torch.float32, logits=1)))


@pytest.mark.usefixtures("no_memory_cache")
def test_chunks_of_selected_rows():
    features = random(400, 5)
    rows = torch.arange(3, 400, 3)
    features[0] = float("nan")
    np.testing.assert_allclose(
        whole(StandardizedFeatures(features, rows, CPU)), expect(features[rows]), atol=1e-5
    )


@pytest.mark.parametrize("wide", [False, True])
def test_fold_back_converts_weights_to_raw_features(wide):
    rows, width = (30, 90) if wide else (90, 30)
    features = random(rows, width) * 5 + 100
    standardised = StandardizedFeatures(features, None, CPU)
    assert standardised.columns == (rows if wide else width)
    weight, bias = random(4, standardised.columns, seed=1).double(), torch.arange(4.0).double()
    expected = whole(standardised, torch.float64) @ weight.T + bias
    raw_weight, raw_bias = standardised.fold_back(weight, bias)
    assert raw_weight.shape == (4, width)
    np.testing.assert_allclose(features.double() @ raw_weight.T + raw_bias, expected, atol=1e-4)


def test_projection_preserves_inner_products():
    features = random(20, 100)
    actual = whole(StandardizedFeatures(features, None, CPU), torch.float64)
    assert actual.shape == (20, 20)
    expected = expect(features)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-4)


def test_constant_columns_get_zero_weight():
    features = torch.cat([random(50, 2), torch.full((50, 1), 1e30), torch.zeros(50, 1)], dim=1)
    # Rounding of float32 beside a mean, in every other row.
    nearly = torch.full((50, 1), 0.1)
    nearly[::2] = nearly[0].nextafter(torch.ones(1))
    features = torch.cat([features, nearly], dim=1)
    standardised = StandardizedFeatures(features, None, CPU)
    assert not whole(standardised)[:, 2:].any()
    weight, _ = standardised.fold_back(torch.ones(3, 5).double(), torch.zeros(3).double())
    assert not weight[:, 2:].any()
    assert weight[:, :2].all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_column_raises(bad):
    features = random(40, 6)
    features[33, 4] = bad
    with pytest.raises(DataError, match=r"feature 4 .* not finite"):
        StandardizedFeatures(features, None, CPU)
