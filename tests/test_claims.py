"""The claims of the README, run end to end."""

import json

import pytest
import torch

import zoo
from tests.devices import DEVICES
from tests.tasks.segmentation.scenes import write_scenes
from zoo.modelfile import read_model


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Three classes of six images each, in an empty current folder."""
    import shutil

    from zoo.tasks.classification.data.sources import EMBEDDED

    for name in ("flag", "mammal", "playing_card"):
        target = tmp_path / "few" / name
        target.mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:6]:
            shutil.copyfile(path, target / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "few"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", ["head", "all", "head-then-all"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [pytest.param("lite0", "auto", marks=pytest.mark.slow), ("resnet18", "none")],
)
def test_finetune_recipe_on_device(few, name, weights, recipe, device):
    run = zoo.finetune(
        name, data=few, weights=weights, recipe=recipe, epochs=1, batch_size=6, device=device
    )
    assert run.record["plan"]["device"].startswith(device)
    _, file = read_model(run.path / "model.safetensors")
    assert all(t.isfinite().all() for t in file.tensors.values() if t.is_floating_point())
    again = run.model(device=device).evaluate(few, "all")
    assert again["images"] == 18


@pytest.mark.parametrize("device", DEVICES)
def test_probe_on_device(few, device):
    run = zoo.finetune("lite0", data=few, device=device)
    assert run.record["plan"]["recipe"] == "probe"
    assert run.record["probe"]["converged"]
    assert run.metrics["val"]["top1"] > 0.5
    assert zoo.finetune("lite0", data=few, device=device).record["backbone_forwards"] == 0


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_recorded_and_weights_stored_as_float32(few, device):
    run = zoo.finetune(
        "lite0", data=few, recipe="head-then-all", epochs=1, device=device, precision="bf16"
    )
    card, file = read_model(run.path / "model.safetensors")
    assert card.precision == "bf16"
    assert {t.dtype for t in file.tensors.values() if t.is_floating_point()} == {torch.float32}
    assert run.model(device=device).evaluate(few, "all")["images"] == 18


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("train", ["head", "all"])
def test_segmentation_on_device(tmp_path, monkeypatch, train, device):
    monkeypatch.chdir(tmp_path)
    data = write_scenes(tmp_path / "scenes", 12, seed=0)
    options = {"weights": "none", "input_size": 64, "epochs": 1, "batch_size": 4}
    run = zoo.finetune(
        "lraspp_mobilenet_v3_large", data=data, train=train, device=device, **options
    )
    assert run.record["plan"]["phases"][0]["keep_features"] is (train == "head")
    values = run.model(device=device).evaluate(data)
    assert (values["images"], values["loss"] > 0) == (2, True)
    assert 0 <= values["miou"] <= values["pixel_accuracy"] <= 1


@pytest.mark.parametrize(
    "name", [pytest.param("inception_v3", marks=pytest.mark.slow), "googlenet"]
)
def test_auxiliary_heads_replaced_and_features_cached(few, name):
    run = zoo.finetune(name, data=few, weights="none", train="head", epochs=2, device="cpu")
    card, file = read_model(run.path / "model.safetensors")
    start = zoo.get(name).heads
    assert card.heads == start
    for head in start:
        assert file.tensors[f"{head.module_path}.weight"].shape[0] == 3
    assert run.record["plan"]["phases"][0]["keep_features"] is True
    assert run.model(device="cpu").evaluate(few, "all")["images"] == 18


@pytest.mark.slow
def test_demonstration_offline_beats_chance(zoo_process, tmp_path):
    done = zoo_process("finetune", "resnet18", "--classes", "10")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs" / "resnet18-1" / "run.json").read_text())
    assert record["demonstration"] is True
    assert record["metrics"]["val"]["top1"] > 3 * record["chance"]
    assert done.stderr.count("DEMONSTRATION") == (2 if record["plan"]["weights"] == "none" else 1)
    assert "chance is 10.4 %" in done.stdout


@pytest.mark.slow
def test_pretrained_probe_beats_random_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = zoo.finetune("lite0")
    random = zoo.finetune("lite0", weights="none", train="head")
    assert real.metrics["val"]["top1"] >= 0.80
    assert random.metrics["val"]["top1"] < real.metrics["val"]["top1"] - 0.25
