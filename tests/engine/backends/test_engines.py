"""Trainings, evaluations, predictions and embeddings by engines."""

import pytest

import zoo
from tests.engine.backends.networks import PROBE
from zoo.engine.backends.choice import FEW, TORCH
from zoo.engine.backends.openvino import OpenVINOEngine


def test_training_on_openvino_is_evaluated_on_it(plainnet, image_folder, monkeypatch, caplog):
    given = zoo.finetune(plainnet, data=image_folder, engine="openvino", **PROBE)
    assert given.record["plan"]["engine"] == "openvino"
    again = zoo.finetune(plainnet, data=image_folder, **PROBE)  # converted before
    assert again.record["plan"]["reasons"]["engine"] == "auto: the network was converted before"
    assert again.record["backbone_forwards"] == 0
    assert again.record["sha256"] == given.record["sha256"]
    model = again.model()
    assert model.card.features["engine"] == "openvino"
    metrics = model.evaluate(image_folder, "val")
    assert list(model.network.engines) == ["openvino 32 False"]
    assert (metrics["engine"], metrics["images"] < FEW) == ("openvino", True)
    assert metrics["loss"] == pytest.approx(given.metrics["val"]["loss"], rel=1e-6)
    images = sorted(image_folder.glob("val/*/*")) * 3  # less would be predicted in torch
    predicted = model.predict(images)
    model.engine = TORCH
    for one, other in zip(predicted, model.predict(images), strict=True):
        probability = other["predictions"][0]["probability"]
        assert one["predictions"][0]["probability"] == pytest.approx(probability, abs=0.01)
    model.engine = "auto"
    assert not caplog.records
    monkeypatch.setattr(OpenVINOEngine, "version", staticmethod(lambda: None))
    model.evaluate(image_folder, "val")
    reason = "features of openvino: OpenVINO is not installed; pip install 'zoo-registry[openvino]'"
    assert reason in caplog.text


def test_embedding_by_engine_is_cached_apart(tinynet, image_folder, tmp_path):
    run = zoo.finetune(tinynet, data=image_folder, **PROBE)
    out = tmp_path / "features.npy"
    first = zoo.embed(run.path, image_folder, out, engine="openvino")
    assert (first["engine"], first["backbone_forwards"] >= 48) == ("openvino", True)
    assert zoo.embed(run.path, image_folder, out, engine="openvino")["backbone_forwards"] == 0
