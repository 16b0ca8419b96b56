"""Predicting with a backbone's name and a user's own weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

import zoo


@pytest.fixture
def image(image_folder):
    return next((image_folder / "val" / "flag").iterdir())


def test_backbone_with_model_file_predicts_its_classes(tinynet, tmp_path, image, cli):
    model = zoo.get(tinynet).build(classes=2)
    (tmp_path / "run").mkdir()
    path = zoo.save(model, tmp_path / "run" / "model.safetensors", ["oak", "ash"])
    expected = cli("predict", path, image, "--json")
    assert expected[0] == 0
    assert {p["class"] for p in json.loads(expected[1])[0]["predictions"]} == {"oak", "ash"}
    for weights in (path, "run"):
        assert cli("predict", tinynet, image, "--json", "--weights", weights) == expected


def test_weights_that_cannot_predict_are_called_so(tinynet, plainnet, tmp_path, image, cli):
    model = zoo.get(tinynet).build(classes=2)
    own = zoo.save(model, tmp_path / "own.safetensors", ["oak", "ash"])
    plain, pickled = tmp_path / "plain.safetensors", tmp_path / "own.pth"
    save_file(model.state_dict(), plain)
    torch.save(model.state_dict(), pickled)
    finetune = f"`zoo finetune {tinynet}` trains it on your images"
    command = f"`zoo import {plain} --as {tinynet} --classes FILE --out plain-model.safetensors`"
    cases = {
        (tinynet, "none"): (2, f"--weights none: random weights predict nothing; {finetune}"),
        (tinynet, "auto"): (2, f"{tinynet} has no published weights to predict with; {finetune}"),
        (tinynet, plain): (2, f"{plain} names no classes to predict; {command}"),
        (tinynet, pickled): (4, f"`zoo import {pickled}`"),
        (tinynet, "absent.safetensors"): (4, "absent.safetensors does not exist"),
        (plainnet, own): (4, f"{own} is a model of {tinynet}, not {plainnet}"),
    }
    for (name, weights), (expected, message) in cases.items():
        code, _, err = cli("predict", name, image, "--weights", weights)
        assert (code, message in err) == (expected, True), err
