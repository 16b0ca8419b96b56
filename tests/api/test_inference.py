"""Loading, predicting and evaluating from Python, as the commands do."""

import json

import pytest
import torch

import zoo


@pytest.fixture
def image(image_folder):
    return next((image_folder / "val" / "flag").iterdir())


@pytest.fixture
def own(tinynet, tmp_path):
    """A model file of tinynet."""
    torch.manual_seed(0)
    names = ["flag", "mammal", "playing_card"]
    return zoo.save(zoo.get(tinynet).build(classes=3), tmp_path / "own.safetensors", names)


def test_predict_options_are_those_of_the_command(tinynet, own, image, cli):
    code, out, _ = cli("predict", tinynet, image, "--weights", own, "--top", "2", "--json")
    assert code == 0
    given = {"weights": own, "top": 2, "batch_size": 1}
    assert zoo.predict(tinynet, image, **given) == json.loads(out)
    (low,) = zoo.predict(own, image, precision="bf16", device="cpu")
    (full,) = zoo.predict(own, image, precision="fp32", device="cpu")
    assert zoo.load(own, precision="bf16").network.precision == "bf16"
    assert low != full
    with pytest.raises(zoo.UsageError, match=r"weights='auto' does not apply to .*own"):
        zoo.predict(own, image, weights="auto")


def test_evaluate_takes_a_backbone_and_weights(tinynet, own, image_folder, cli):
    code, out, _ = cli("evaluate", own, "--data", image_folder, "--json")
    assert code == 0
    expected = json.loads(out)
    assert zoo.evaluate(own, image_folder) == expected
    assert zoo.evaluate(zoo.get(tinynet), image_folder, weights=own) == expected
    given = (tinynet, "--weights", own, "--data", image_folder, "--json")
    assert json.loads(cli("evaluate", *given)[1]) == expected
    with pytest.raises(zoo.UsageError, match=f"{tinynet} has no published weights"):
        zoo.evaluate(tinynet, image_folder)


def test_load_of_nothing_is_missing_weights(tmp_path):
    with pytest.raises(zoo.WeightsError, match=r"runs/absent does not exist"):
        zoo.load(tmp_path / "runs" / "absent")
    with pytest.raises(zoo.WeightsError, match="resnet81"):
        zoo.load("resnet81")
