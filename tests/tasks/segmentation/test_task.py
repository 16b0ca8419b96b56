"""Segmentation end to end: training, evaluation and prediction."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import zoo
from tests.tasks.segmentation.scenes import SHAPES, write_scenes
from zoo.engine.features import cache
from zoo.errors import DataError, UsageError

FP32 = {"weights": "none", "device": "cpu", "precision": "fp32"}
HEADS = {
    "dense/tinyfcn": ("classifier.4.", "aux_classifier.4."),
    "dense/twohead": ("classifier.low_classifier.", "classifier.high_classifier."),
}
# Disables the feature cache; a flip this rare never occurs.
NO_CACHE = "flip:1e-12"


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [*HEADS])
def test_cached_features_equal_epoch_loop(tinyfcn, scenes, own_cache, name):
    options = {**FP32, "data": scenes, "train": "head", "epochs": 3, "batch_size": 7, "lr": 0.01}
    cached = zoo.finetune(name, **options)
    plain = zoo.finetune(name, **options, augment=NO_CACHE)
    assert cached.record["plan"]["phases"][0]["keep_features"] is True
    assert plain.record["plan"]["phases"][0]["keep_features"] is False
    # 20 images, and 4 of the validation split twice to compare heads alone with the network.
    assert cached.record["backbone_forwards"] == 20 + 2 * 4
    assert plain.record["backbone_forwards"] == 3 * 20
    assert zoo.finetune(name, **options).record["backbone_forwards"] == 0
    from_cache, from_images = (load_file(run.path / "model.safetensors") for run in (cached, plain))
    torch.manual_seed(0)
    start = zoo.get(name).build(classes=4).state_dict()
    outside = [key for key in start if not key.startswith(HEADS[name])]
    assert len(outside) == len(start) - 4
    for key in start:
        assert torch.allclose(from_cache[key], from_images[key], rtol=1e-4, atol=1e-5), key
        assert (key in outside) == torch.equal(from_cache[key], start[key]), key
    for metric, value in cached.metrics["val"].items():
        if metric != "per_class":
            assert value == pytest.approx(plain.metrics["val"][metric], abs=1e-4)


def test_micro_batches_equal_full_batch(tinyfcn, tmp_path):
    # Padding, most of the input of a wide image, is excluded from means.
    for number, size in enumerate([(96, 16), (64, 64)]):
        write_scenes(tmp_path / str(number), 8, number, size)
    for folder in ("images", "masks"):
        (tmp_path / "both" / folder).mkdir(parents=True)
        for number in (0, 1):
            for path in (tmp_path / str(number) / folder).iterdir():
                path.rename(tmp_path / "both" / folder / f"{number}-{path.name}")
    options = {**FP32, "data": tmp_path / "both", "train": "head", "augment": NO_CACHE}
    whole, parts = (
        load_file(zoo.finetune(tinyfcn, **options, **more).path / "model.safetensors")
        for more in (
            {"epochs": 2, "optimizer": "sgd"},
            {"epochs": 2, "optimizer": "sgd", "micro_batch_size": 3},
        )
    )
    for key, tensor in whole.items():
        assert torch.allclose(tensor, parts[key], rtol=1e-4, atol=1e-6), key


def test_plan_reports_masks_over_memory_limit(tinyfcn, scenes, own_cache, monkeypatch):
    monkeypatch.setattr(cache, "TARGET_LIMIT", 20 * 64 * 64 - 1)
    run = zoo.finetune(tinyfcn, **FP32, data=scenes, train="head", epochs=1)
    plan = run.record["plan"]
    assert plan["phases"][0]["keep_features"] is False
    assert "targets of 20 images take 0 MiB" in json.dumps(plan["reasons"])


def test_finetune_evaluate_and_predict_masks(tinyfcn, scenes, cli, tmp_path):
    common = ("--device", "cpu", "--json")
    training = ("--train", "all", "--epochs", "2", "--augment", "crop:0.5,flip,rotate,color")
    code, out, _ = cli(
        "finetune", tinyfcn, "--data", scenes, "--weights", "none", *training, *common
    )
    run = json.loads(out)
    assert (code, run["task"], run["chance"]) == (0, "semantic-segmentation", None)
    assert run["plan"]["schema"] == {
        "classes": list(SHAPES),
        "palette": ["#000000", "#dc2828", "#28dc28", "#2828dc"],
        "ignore_index": 255,
    }
    assert set(run["metrics"]["val"]) == {"loss", "miou", "pixel_accuracy", "images", "per_class"}
    header = (tmp_path / "runs/tinyfcn-1/history.csv").read_text().splitlines()[0]
    assert "val_loss,val_miou,val_pixel_accuracy" in header
    # The validation images of the training.
    code, out, _ = cli("evaluate", "runs/tinyfcn-1", "--data", scenes, "--split", "val", *common)
    again = json.loads(out)
    assert (code, again["images"]) == (0, 4)
    for name in ("miou", "pixel_accuracy", "loss"):
        assert again[name] == pytest.approx(run["metrics"]["val"][name], abs=1e-6)
    assert "CLASS" in cli("evaluate", "runs/tinyfcn-1", "--data", scenes)[1]
    images = [scenes / "images" / "0000.png", scenes / "images" / "0001.png"]
    code, out, _ = cli(
        "predict", "runs/tinyfcn-1", *images, "--out", "masks", "--csv", "all.csv", *common
    )
    answers = json.loads(out)
    rows = list(csv.DictReader((tmp_path / "all.csv").open(newline="")))
    assert [
        (r["path"], r["class"], float(r["fraction"]), r["mask"], r["overlay"]) for r in rows
    ] == [
        (answer["path"], each["class"], each["fraction"], answer["mask"], answer["overlay"])
        for answer in answers
        for each in answer["predictions"]
    ]
    assert (code, [answer["path"] for answer in answers]) == (0, [str(path) for path in images])
    for answer in answers:
        assert sum(each["fraction"] for each in answer["predictions"]) == pytest.approx(1)
        with Image.open(answer["mask"]) as mask, Image.open(answer["overlay"]) as overlay:
            assert (mask.mode, mask.size, overlay.size) == ("P", (96, 72), (96, 72))
            share = float((np.asarray(mask) == 0).mean())
        assert answer["predictions"][0]["fraction"] == pytest.approx(
            share if answer["predictions"][0]["class"] == "background" else 1 - share, abs=0.5
        )
    code, out, _ = cli("predict", "runs/tinyfcn-1", images[0], "--out", "masks")
    assert (code, "mask  masks/0000.png" in out) == (0, True)
    (answer,) = zoo.load("runs/tinyfcn-1").predict(images[0])
    assert (answer["mask"], answer["predictions"][0]["class"]) == (
        None,
        answers[0]["predictions"][0]["class"],
    )


def test_unsupported_options_are_rejected_before_training(tinyfcn, scenes, cli, tmp_path):
    given = ("finetune", tinyfcn, "--weights", "none")
    for extra, message in (
        (("--data", scenes, "--train", "head", "--augment", "flip", "--views", "2"), "--views"),
        (("--data", scenes, "--augment", "trivial"), "--augment trivial"),
        ((), "no demonstration set"),
        (("--data", scenes, "--recipe", "probe"), "trained epoch by epoch"),
    ):
        code, _, err = cli(*given, *extra)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert not (tmp_path / "runs").exists()


def test_user_loss_with_class_weights_trains(tinyfcn, scenes):
    criterion = nn.CrossEntropyLoss(torch.tensor([1.0, 4.0, 4.0, 4.0]), ignore_index=255)
    run = zoo.finetune(tinyfcn, **FP32, data=scenes, train="all", epochs=1, loss=criterion)
    assert "ignore_index=255" in run.record["plan"]["loss"]
    with pytest.raises(UsageError, match="give ignore_index=255"):
        zoo.finetune(
            tinyfcn, **FP32, data=scenes, train="all", epochs=1, loss=nn.CrossEntropyLoss()
        )


@pytest.fixture
def two_images(scenes, tmp_path):
    """A folder of one training and one validation image."""
    for folder, suffix in (("images", "png"), ("masks", "png")):
        (tmp_path / "two" / folder).mkdir(parents=True)
        for number in (0, 1):
            name = f"{folder}/{number:04}.{suffix}"
            shutil.copyfile(scenes / name, tmp_path / "two" / name)
    (tmp_path / "two" / "classes.txt").write_text("\n".join(SHAPES))
    return tmp_path / "two"


@pytest.mark.slow
def test_deeplab_trains_on_batch_of_one(two_images, scenes):
    name, pooled = "deeplabv3_mobilenet_v3_large", "classifier.0.convs.4.2."
    options = {**FP32, "train": "all", "epochs": 1, "input_size": 64}
    run = zoo.finetune(name, data=two_images, **options)
    tensors = load_file(run.path / "model.safetensors")
    # A single value has no variance: only that layer's statistics stay unchanged.
    assert torch.equal(tensors[f"{pooled}running_var"], torch.ones(256))
    assert tensors[f"{pooled}num_batches_tracked"] == 0
    assert tensors["backbone.0.1.num_batches_tracked"] == 1
    parts = zoo.finetune(name, data=scenes, **options, batch_size=4, micro_batch_size=1)
    tensors = load_file(parts.path / "model.safetensors")
    assert tensors["backbone.0.1.num_batches_tracked"] == 16
    assert np.isfinite(parts.metrics["val"]["loss"])


@pytest.fixture
def published(install, tinyfcn, tmp_path):
    """Published weights of a plugin, with another class order than the scenes."""
    install(
        "shop",
        f"""
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone(
                name="shopnet",
                builder="plugin_dense:twohead",
                heads=(
                    zoo.Head("classifier.low_classifier"), zoo.Head("classifier.high_classifier")
                ),
                preprocess=zoo.Preprocess(size=64, resize=64, crop="border"),
                task="semantic-segmentation",
                kwargs={{"num_classes": 5}},
                weights=(
                    zoo.Weights(
                        "five",
                        file={str(tmp_path / "published.safetensors")!r},
                        num_classes=5,
                        classes=("cross", "boat", "disc", "background", "triangle"),
                    ),
                ),
            )
        """,
    )
    model = zoo.get("twohead").build(classes=5)
    save_file(model.state_dict(), tmp_path / "published.safetensors")
    return "shop/shopnet"


def test_published_weights_evaluate_and_predict(published, scenes, cli):
    code, out, _ = cli("evaluate", published, "--data", scenes, "--json", "--device", "cpu")
    values = json.loads(out)
    assert (code, values["split"], values["images"]) == (0, "all", 20)
    # Pixels of the masks are counted under the model's class names.
    counts = np.zeros(4, dtype=int)
    for path in (scenes / "masks").iterdir():
        with Image.open(path) as mask:
            counts += np.bincount(np.asarray(mask).ravel(), minlength=4)
    expected = dict(zip(SHAPES, counts.tolist(), strict=True)) | {"boat": 0}
    pixels = {name: each["pixels"] for name, each in values["per_class"].items()}
    height = 48  # rows of 72 scaled into 64 x 64 with a border
    assert pixels["boat"] == 0
    assert sum(pixels.values()) == 20 * 64 * height
    for name, count in expected.items():
        assert pixels[name] * 96 * 72 == pytest.approx(count * 64 * height, rel=0.1)
    code, out, _ = cli("predict", published, scenes / "images" / "0003.png", "--json")
    (answer,) = json.loads(out)
    assert {each["class"] for each in answer["predictions"]} <= set(expected)


def test_evaluate_rejects_unknown_classes(published, two_images):
    (two_images / "classes.txt").write_text("background\ndisc\ntriangle\ncrossing\n")
    run = zoo.finetune(published, data=two_images, **{**FP32, "weights": "auto"}, train="head")
    (two_images / "classes.txt").write_text("background\ndisc\ntriangle\nzebra\n")
    with pytest.raises(DataError, match="unknown to the model: zebra"):
        zoo.load(run.path).evaluate(two_images)
