"""Predict, evaluate and load trained models and pretrained backbones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
from zoo.data.decode import decode
from zoo.data.transforms import normalize, prepare
from zoo.modelfile import read_model

QUICK = {"weights": "none", "device": "cpu", "epochs": 1, "batch_size": 8, "train": "head"}


@pytest.fixture
def trained(tinynet, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return zoo.finetune(tinynet, data=image_folder, **QUICK)


def test_predict_and_evaluate_agree(trained, image_folder):
    model = zoo.load(trained.path, device="cpu")
    right = images = 0
    for name in model.classes:
        for path in sorted((image_folder / "val" / name).iterdir()):
            (result,) = model.predict(path, top=3)
            assert result["path"] == str(path)
            assert [set(p) for p in result["predictions"]] == [{"class", "probability"}] * 3
            assert sum(p["probability"] for p in result["predictions"]) == pytest.approx(1)
            right += result["predictions"][0]["class"] == name
            images += 1
    assert model.evaluate(image_folder, "val")["top1"] == right / images
    assert trained.metrics["val"]["top1"] == right / images


def test_predict_many_reports_unreadable_images(trained, image_folder, tmp_path):
    model = zoo.load(trained.path / "model.safetensors", device="cpu")
    (tmp_path / "words.jpg").write_text("no image")
    good = sorted((image_folder / "val" / "flag").iterdir())[0]
    one, two, three = model.predict([good, tmp_path / "words.jpg", Image.open(good)], top=1)
    assert one["predictions"] == three["predictions"]
    assert "predictions" not in two
    assert "words.jpg" in two["error"]
    with pytest.raises(zoo.UsageError):
        model.predict(good, top=0)


def test_evaluate_refuses_unknown_classes(trained, image_folder, tmp_path):
    (tmp_path / "data" / "zebra").mkdir(parents=True)
    source = next((image_folder / "val" / "flag").iterdir())
    (tmp_path / "data" / "zebra" / "a.jpg").write_bytes(source.read_bytes())
    with pytest.raises(zoo.DataError, match="zebra"):
        zoo.load(trained.path, device="cpu").evaluate(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("torchvision/resnet18", "torchvision.models:resnet18"),
        ("timm/resnet10t", "timm.models:resnet10t"),
    ],
)
def test_model_file_loads_without_zoo(name, plain, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = zoo.finetune(name, data=image_folder, precision="fp32", **QUICK)
    network = zoo.spec.resolve_target(plain)(num_classes=3)
    network.load_state_dict(load_file(run.path / "model.safetensors"))
    network.eval()
    model = zoo.load(run.path, device="cpu")
    path = sorted((image_folder / "val" / "flag").iterdir())[0]
    image = normalize(prepare(decode(path), model.preprocess)[None], model.preprocess)
    with torch.no_grad():
        expected = network(image).softmax(1)[0]
    for prediction in model.predict(path, top=3)[0]["predictions"]:
        index = model.classes.index(prediction["class"])
        assert prediction["probability"] == pytest.approx(expected[index].item(), abs=1e-5)


def test_model_card_content(trained, image_folder):
    from safetensors import safe_open

    with safe_open(trained.path / "model.safetensors", "pt") as file:
        card = json.loads(file.metadata()["zoo"])
    assert card["task"] == "image-classification"
    assert card["schema"] == {"classes": ["flag", "mammal", "playing_card"]}
    assert card["backbone"] == "tiny/tinynet"
    assert card["preprocess"]["size"] == [32, 32]
    assert card["metrics"]["val"]["top1"] == trained.metrics["val"]["top1"]
    assert str(image_folder) not in json.dumps(card)
    assert "workers" not in json.dumps(card)


def forge(path, **changes):
    """Rewrite the card of a model file, without changing its tensors."""
    card, file = read_model(path)
    plain = {**json.loads(card.to_json()), **changes}
    save_file(file.tensors, path, {"zoo": json.dumps(plain)})


@pytest.mark.parametrize(
    "changes",
    [
        {"kwargs": {"checkpoint_path": "/tmp/evil.pth"}},
        {"kwargs": {"name": "hf-hub:stranger/model"}},
        {"heads": [{"path": "no.such"}]},
        {"preprocess": {"size": [0, 0]}},
        {"preprocess": {"size": [1000000, 1000000]}},
        {"precision": "fp7"},
        {"backbone": 5},
        {"schema": {"classes": ["a", "a", "b"]}},
        {"schema": ["a", "b", "c"]},
    ],
)
def test_forged_card_is_refused(trained, image_folder, changes):
    file = trained.path / "model.safetensors"
    forge(file, **changes)
    with pytest.raises(
        zoo.WeightsError, match=r"damaged description|invalid schema|is refused|other heads"
    ):
        zoo.load(trained.path, device="cpu")
    with pytest.raises(zoo.WeightsError):
        zoo.finetune("tiny/tinynet", data=image_folder, **{**QUICK, "weights": file})


@pytest.mark.parametrize("schema", [{"classes": []}, {}, {"classes": ["a", "b", "c"], "x": 1}])
def test_invalid_schema_is_refused(trained, schema):
    forge(trained.path / "model.safetensors", schema=schema)
    with pytest.raises(zoo.WeightsError, match="invalid schema"):
        zoo.load(trained.path, device="cpu")


def test_unknown_task_is_named(trained):
    forge(trained.path / "model.safetensors", task="object-counting")
    with pytest.raises(zoo.UsageError, match="no plugin registers the task 'object-counting'"):
        zoo.load(trained.path, device="cpu")


def test_evaluate_on_training_folder_uses_validation_split(
    tinynet, image_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = zoo.finetune(tinynet, data=image_folder / "train", seed=3, **QUICK)
    model = run.model(device="cpu")
    values = model.evaluate(image_folder / "train")
    assert values["split"] == "val"
    assert values["confusion"] == run.metrics["val"]["confusion"]
    assert model.evaluate(image_folder / "train", "all")["images"] == 24


def test_predict_accepts_paths_bytes_and_arrays(trained, image_folder):
    path = sorted((image_folder / "val" / "flag").iterdir())[0]
    model = zoo.load(trained.path, device="cpu")
    array = np.asarray(Image.open(path).convert("RGB"))
    one, two, three = (
        model.predict(image)[0]["predictions"] for image in (path, path.read_bytes(), array)
    )
    assert one == two == three


def test_missing_plugin_raises_unknown_backbone(trained, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "")
    with pytest.raises(zoo.UnknownBackbone, match="tiny/tinynet"):
        zoo.load(trained.path)


def test_damaged_or_missing_model_file_is_refused(trained, tmp_path):
    file = trained.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(zoo.WeightsError, match="not a valid safetensors"):
        zoo.load(trained.path)
    with pytest.raises(zoo.WeightsError, match="does not exist"):
        zoo.load(tmp_path / "nothing" / "model.safetensors")


def test_predict_refuses_backbone_without_published_head():
    headless = next(
        b for b in zoo.list_backbones(source="timm") if b.weights and not b.weights[0].num_classes
    )
    with pytest.raises(zoo.UsageError, match="zoo finetune"):
        zoo.predict(headless.id, [])
    with pytest.raises(zoo.UsageError, match="no published weights"):
        zoo.predict(zoo.list_backbones(source="timm", pretrained=False)[0].id, [])


def test_evaluate_command_of_many_classes(cli, tinynet, image_folder, tmp_path):
    """Of more than 2,000 classes there is no confusion matrix."""
    names = [f"other {number}" for number in range(2000)]
    names[100], names[1500], names[1999] = "flag", "mammal", "playing_card"
    names.append("last")
    zoo.save(zoo.get(tinynet).build(classes=2001), tmp_path / "many.safetensors", names)
    code, out, err = cli("evaluate", "many.safetensors", "--data", image_folder, "--device", "cpu")
    assert code == 0, err
    assert "chance  33.3 %" in out
    code, out, _ = cli("evaluate", "many.safetensors", "--data", image_folder, "--json")
    values = json.loads(out)
    assert code == 0
    assert values["confusion"] is None
    assert len(values["per_class"]) == 2001
    assert values["per_class"]["mammal"]["images"] == 4
