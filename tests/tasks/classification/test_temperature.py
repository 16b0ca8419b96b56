"""Temperature scaling against scipy's minimiser, and in the model file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

import zoo
import zoo.data
from zoo.modelfile import ModelCard, read_model, write_model
from zoo.tasks.classification.temperature import MIN_IMAGES, fit_temperature


def sample(images: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that are `scale` times those that labels are drawn from, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_equals_scipy_minimum(scale):
    logits, labels = sample(4000, scale)

    def loss(log: float) -> float:
        return cross_entropy(logits.double() / np.exp(log), labels).item()

    found = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(float(np.exp(found.x)), rel=1e-4)
    assert temperature == pytest.approx(scale, rel=0.1)


def test_temperature_ignores_classes_without_images():
    logits, labels = sample(500, 2.0)
    lowest = torch.full((500, 1), torch.finfo(torch.float32).min)
    assert fit_temperature(torch.cat([logits, lowest], 1), labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-4
    )


def test_temperature_of_few_or_separable_images_is_none():
    logits, labels = sample(MIN_IMAGES - 1, 1.0)
    assert fit_temperature(logits, labels) is None
    perfect = torch.eye(4).repeat(50, 1)
    assert fit_temperature(perfect, torch.arange(4).repeat(50)) is None
    assert fit_temperature(-perfect, torch.arange(4).repeat(50)) is None


def test_temperature_scales_predictions_but_no_weight(tmp_path):
    run = zoo.finetune("lite0", out=tmp_path / "run", device="cpu")
    path = run.path / "model.safetensors"
    card, file = read_model(path)
    assert card.temperature == run.record["temperature"] is not None
    write_model(tmp_path / "plain.safetensors", file.tensors, replace(card, temperature=None))
    assert b"temperature" not in (tmp_path / "plain.safetensors").read_bytes()
    images = sorted((Path(zoo.data.__path__[0]) / "clipart10" / "val" / "fruit").iterdir())
    scaled = zoo.load(path).predict(images, top=10)
    plain = zoo.load(tmp_path / "plain.safetensors").predict(images, top=10)
    for one, other in zip(scaled, plain, strict=True):
        assert one["predictions"][0]["class"] == other["predictions"][0]["class"]
        own = {each["class"]: each["probability"] for each in other["predictions"]}
        logits = torch.tensor([own[each["class"]] for each in one["predictions"]]).double().log()
        expected = (logits / card.temperature).softmax(0).tolist()
        actual = [each["probability"] for each in one["predictions"]]
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5)
    evaluated = zoo.evaluate(path, device="cpu")
    assert evaluated["loss"] == pytest.approx(run.metrics["val"]["loss"])


@pytest.mark.parametrize("value", [0.0, -1.0, "1", float("inf")])
def test_damaged_temperature_is_refused(tmp_path, value):
    card = ModelCard("a/b", {}, (), "t", {}, zoo.Preprocess(32), "fp32", temperature=value)
    with pytest.raises(zoo.WeightsError, match="its temperature cannot be used"):
        card.check(tmp_path)
