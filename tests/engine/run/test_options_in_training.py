"""Options in training: losses, metrics, heads, data sets and loaders of the user's."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder

import zoo
from tests.engine.run.fitting import fit_phase
from zoo.engine.plan.resolve import Options
from zoo.modelfile import read_model
from zoo.options import Augmentation, HeadSpec, Policy, Schedule

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8, "epochs": 1}


def tensors(run):
    return read_model(run.path / "model.safetensors")[1].tensors


def rows(run):
    return list(csv.DictReader((run.path / "history.csv").open()))


def test_custom_loss_trains_and_cross_entropy_is_reported(tinynet, image_folder):
    plain = zoo.finetune(tinynet, data=image_folder, **QUICK)
    named = zoo.finetune(tinynet, data=image_folder, loss=cross_entropy, **QUICK)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    other = zoo.finetune(tinynet, data=image_folder, loss=smooth, **QUICK)
    values = [run.record["plan"]["loss"] for run in (plain, named, other)]
    assert values[:2] == ["cross-entropy", "cross_entropy"]
    assert "label_smoothing=0.1" in values[2]
    assert other.record["plan"]["reasons"]["loss"] == "as given"
    for name, tensor in tensors(plain).items():
        assert torch.equal(tensor, tensors(named)[name])
    assert rows(plain)[0]["train_loss"] != rows(other)[0]["train_loss"]
    # By hand: cross-entropy of the network, not the loss that trained it.
    model = other.model("cpu")
    folder = ImageFolder(image_folder / "val", transform=zoo.transform(model))
    images, labels = (torch.stack([i for i, _ in folder]), torch.tensor(folder.targets))
    with torch.no_grad():
        by_hand = cross_entropy(model.module(images), labels).item()
    assert other.metrics["val"]["loss"] == pytest.approx(by_hand, rel=1e-4)


def test_custom_loss_is_applied_to_auxiliary_heads(tinynet, image_folder):
    widths = []

    def seen(logits, labels):
        widths.append((logits.dtype, tuple(logits.shape), labels.dtype))
        return cross_entropy(logits, labels)

    zoo.finetune(tinynet, data=image_folder, train="all", loss=seen, **QUICK)
    # Three batches of eight, each through the main and the auxiliary head.
    assert widths == [(torch.float32, (8, 3), torch.int64)] * 6


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(reduction="none"), "the loss returned shape [8]"),
        (lambda logits, labels: 1.0, "the loss returned a float"),
        (lambda logits, labels: logits.detach().mean(), "a number without gradients"),
        (nn.BCEWithLogitsLoss(), "the loss fails: ValueError: Target size"),
        (lambda logits: logits.mean(), "the loss fails: TypeError"),
    ],
    ids=["vector", "float", "detached", "bce", "arguments"],
)
def test_invalid_loss_is_refused(tinynet, image_folder, tmp_path, loss, message):
    with pytest.raises(zoo.UsageError) as caught:
        zoo.finetune(tinynet, data=image_folder, loss=loss, **QUICK)
    assert message in str(caught.value)
    assert not (tmp_path / "here" / "runs").exists()


def recall(logits, labels):
    flags = labels == 0
    return (logits.argmax(1)[flags] == 0).float().mean()


@pytest.mark.parametrize("train", ["head", "all"])
def test_custom_metrics_are_reported_in_all_outputs(tinynet, image_folder, train):
    sizes = []

    def size(logits, labels):
        sizes.append(len(logits))
        return len(labels)

    metrics = {"flags": recall, "size": size}
    run = zoo.finetune(tinynet, data=image_folder, train=train, metrics=metrics, **QUICK)
    values = json.loads((run.path / "run.json").read_text())["metrics"]
    for split in ("val", "test"):
        assert values[split]["flags"] == pytest.approx(values[split]["per_class"]["flag"]["top1"])
        assert values[split]["size"] == 12
    assert set(sizes) == {12}
    assert [row["val_size"] for row in rows(run)] == ["12.0"]
    card, _ = read_model(run.path / "model.safetensors")
    assert card.metrics["val"]["flags"] == values["val"]["flags"]
    again = zoo.evaluate(
        run.path, image_folder, split="val", device="cpu", metrics={"flags": recall}
    )
    assert again["flags"] == values["val"]["flags"]
    # Metrics do not affect training.
    without = zoo.finetune(tinynet, data=image_folder, train=train, **QUICK)
    assert all(torch.equal(tensors(run)[name], tensor) for name, tensor in tensors(without).items())


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda logits, labels: float("nan"), "the metric mine is nan"),
        (lambda logits, labels: logits, "the metric mine fails"),
        (lambda logits: 1, "the metric mine fails: TypeError"),
    ],
)
def test_invalid_metric_is_refused(tinynet, image_folder, metric, message):
    with pytest.raises(zoo.UsageError, match=message):
        zoo.finetune(tinynet, data=image_folder, metrics={"mine": metric}, **QUICK)


def test_custom_metrics_of_unreadable_test_split(tinynet, image_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(image_folder, broken)
    for path in (broken / "test").rglob("*.jpg"):
        path.write_text("no image")
    run = zoo.finetune(tinynet, data=broken, bad_images="skip", metrics={"flags": recall}, **QUICK)
    assert "test" not in run.metrics
    assert "flags" in run.metrics["val"]


def test_augmentation_independent_of_workers(tinynet, image_folder):
    digests = set()
    for workers in (0, 2):
        run = zoo.finetune(
            tinynet, data=image_folder, train="head", augment="crop,flip", workers=workers, **QUICK
        )
        digests.add(run.record["sha256"])
    assert len(digests) == 1
    plan = run.record["plan"]
    assert plan["augment"] == "crop:0.08,flip:0.5"
    assert plan["phases"][0]["keep_features"] is False
    assert "augmented images differ between epochs" in plan["reasons"]["phases.0.keep_features"]
    # The plain loop: no forward passes to check that features can be cached.
    assert run.record["backbone_forwards"] == 24 + 12 + 12
    still = zoo.finetune(tinynet, data=image_folder, train="head", **QUICK)
    assert still.record["plan"]["phases"][0]["keep_features"] is True
    assert still.record["sha256"] not in digests


@pytest.mark.parametrize("head", ["mlp:8", "mlp:8,dropout=0.5"])
def test_mlp_on_cached_features_equals_plain_loop(tinynet, image_folder, head):
    options = Options(
        data=image_folder, train="head", head=head, optimizer="sgd", **{**QUICK, "epochs": 3}
    )
    results = []
    for cached in (True, False):
        result = fit_phase(tinynet, options, cached)
        folder, run = result.path, result.record
        history = csv.DictReader((folder / "history.csv").open())
        losses = [(float(row["train_loss"]), float(row["val_loss"])) for row in history]
        results.append((losses, run["backbone_forwards"]))
    assert results[0][1] < results[1][1]
    for on_features, on_images in zip(results[0][0], results[1][0], strict=True):
        assert on_features == pytest.approx(on_images, rel=1e-4)
    model = zoo.load(folder, "cpu")
    assert len(model.module.head.fc) == (4 if "dropout" in head else 3)
    assert model.evaluate(image_folder, "val")["loss"] == pytest.approx(
        run["metrics"]["val"]["loss"], rel=1e-4
    )


def test_grey_images_and_their_model_file(odd, tinynet, image_folder):
    run = zoo.finetune("odd/anynet", data=image_folder, in_chans=1, **QUICK)
    plan = run.record["plan"]
    assert plan["kwargs"] == {"channels": 1}
    assert len(plan["preprocess"]["mean"]) == 1
    assert tensors(run)["body.0.weight"].shape[1] == 1
    model = run.model("cpu")
    assert model.evaluate(image_folder, "val")["loss"] == pytest.approx(run.metrics["val"]["loss"])
    assert zoo.transform(model)(next((image_folder / "val" / "flag").iterdir())).shape == (
        1,
        32,
        32,
    )
    with pytest.raises(zoo.UsageError, match="takes 3 channels"):
        zoo.finetune(tinynet, data=image_folder, in_chans=1, **QUICK)


def test_other_channels_require_tensors(odd, image_folder):
    images, labels = torch.randn(12, 4, 32, 32), torch.arange(12) % 3
    run = zoo.finetune("odd/anynet", data=TensorDataset(images, labels), in_chans=4, **QUICK)
    assert run.model("cpu").features(images).shape == (12, 8)
    with pytest.raises(zoo.UsageError, match="image files are read as"):
        zoo.finetune("odd/anynet", data=image_folder, in_chans=4, **QUICK)
    bytes_ = TensorDataset((images * 50 + 99).clamp(0, 255).byte(), labels)
    with pytest.raises(zoo.DataError, match="3 channels, and the network sees 4"):
        zoo.finetune("odd/anynet", data=bytes_, in_chans=4, **QUICK)


class Noise(Dataset):
    """Another image on each access."""

    classes = ("dark", "light", "mixed")

    def __init__(self, count=24):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = index % 3
        return torch.randint(60 * label, 60 * label + 60, (3, 40, 40), dtype=torch.uint8), label


def test_dataset_trains_to_the_same_bytes(tinynet):
    for data in (Noise(), {"train": Noise(), "val": Noise(6), "test": Noise(9)}):
        runs = [zoo.finetune(tinynet, data=data, **QUICK) for _ in range(2)]
        assert runs[0].record["sha256"] == runs[1].record["sha256"]
        plan = runs[0].record["plan"]
        assert plan["classes"] == ["dark", "light", "mixed"]
        assert plan["data"]["name"] == "your Noise"
        assert "augmented" not in plan["reasons"]["phases.0.keep_features"]


def test_random_dataset_independent_of_workers(tinynet):
    data = {"train": Noise(), "val": Noise(6)}
    runs = [zoo.finetune(tinynet, data=data, workers=workers, **QUICK) for workers in (0, 2)]
    assert runs[0].record["sha256"] == runs[1].record["sha256"]
    model = runs[0].model("cpu")
    values = model.evaluate(Noise(6))
    assert values["loss"] == runs[0].metrics["val"]["loss"]
    assert model.evaluate(Noise(6), workers=2) == values


def test_evaluate_dataset_equals_folder(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, **QUICK)
    model = run.model("cpu")
    folder = model.evaluate(image_folder, "val")
    items = ImageFolder(image_folder / "val")
    prepared = ImageFolder(image_folder / "val", transform=zoo.transform(model))
    for data in (items, prepared, {"val": items}, DataLoader(prepared, batch_size=5)):
        values = model.evaluate(data)
        assert values["loss"] == pytest.approx(folder["loss"], rel=1e-5)
        assert values["confusion"] == folder["confusion"]
    with pytest.raises(zoo.DataError, match=r"not the model's, in its order: .*train"):
        model.evaluate(ImageFolder(image_folder))


def test_evaluate_uses_the_whole_training_dataset(tinynet):
    run = zoo.finetune(tinynet, data=Noise(), **QUICK)
    values = run.model("cpu").evaluate(Noise())
    assert (values["split"], values["images"]) == ("all", 24)


def test_training_on_data_loaders(tinynet, image_folder):
    transform = zoo.transform(tinynet)

    def loaders(size=6):
        return {
            split: DataLoader(ImageFolder(image_folder / split, transform), size, shuffle=True)
            for split in ("train", "val", "test")
        }

    given = {name: value for name, value in QUICK.items() if name != "batch_size"}
    one, two = (zoo.finetune(tinynet, data=loaders(), **given) for _ in range(2))
    assert one.record["sha256"] == two.record["sha256"]
    assert one.record["plan"]["batch_size"] == 6
    assert one.metrics["test"]["images"] == 12
    assert one.record["backbone_forwards"] == 24 + 12 + 12
    with pytest.raises(zoo.UsageError, match="yields batches of 6"):
        zoo.finetune(tinynet, data=loaders(), **QUICK)
    with pytest.raises(zoo.UsageError, match=r"^augment cannot be applied to a DataLoader"):
        zoo.finetune(tinynet, data=loaders(), augment="flip", **given)
    with pytest.raises(zoo.DataError, match=r"\[3, 32, 32\], and the network sees \[3, 64, 64\]"):
        zoo.finetune(tinynet, data=loaders(), input_size=64, **given)


def test_save_and_load_network_trained_by_user_code(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=3, head="mlp:8,dropout=0.5")
    optimizer = torch.optim.SGD(zoo.freeze(model), lr=0.1)
    images = torch.randn(8, 3, 32, 32)
    for _ in range(2):
        model.train()
        main, _ = model(images)
        optimizer.zero_grad()
        cross_entropy(main, torch.arange(8) % 3).backward()
        optimizer.step()
    path = zoo.save(model, tmp_path / "new" / "mine.safetensors", ["a", "b", "c"])
    loaded = zoo.load(path, "cpu")
    saved = loaded.module.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(images), model.eval()(images))
    assert loaded.classes == ("a", "b", "c")
    again = zoo.save(model, tmp_path / "again.safetensors", ["a", "b", "c"])
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_of_other_precision_is_saved_in_float32(tinynet, tmp_path, dtype):
    network = zoo.get(tinynet).build(classes=3).to(dtype)
    saved = zoo.load(zoo.save(network, tmp_path / "m.safetensors", iter("abc"))).module
    for name, tensor in network.state_dict().items():
        assert torch.equal(saved.state_dict()[name], tensor.to(saved.state_dict()[name].dtype))
    with pytest.raises(zoo.UsageError, match=rf"computes in {dtype}; .*network\.float\(\)"):
        zoo.features(network, np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("path", "classes", "message"),
    [
        ("m.safetensors", ["a", "b"], "2 classes are named, but the output size of head.fc is 3"),
        ("m.safetensors", ["a", "b", "a"], "give a unique name per class"),
        ("m.safetensors", [0, 1, 2], "not a list of names"),
        ("m.safetensors", "abc", "not a list of names"),
        ("m.safetensors", {"b": 1, "a": 0, "c": 2}, "not a list of names"),
        ("m.safetensors", {"a", "b", "c"}, "not a list of names"),
        ("m.safetensors", 3, "not a list of names"),
        ("m.pth", ["a", "b", "c"], "write m.safetensors"),
    ],
)
def test_save_refuses_invalid_names(tinynet, tmp_path, path, classes, message):
    model = zoo.get(tinynet).build(classes=3)
    with pytest.raises(zoo.UsageError) as caught:
        zoo.save(model, tmp_path / path, classes)
    assert message in str(caught.value)
    assert not (tmp_path / path).exists()


@pytest.mark.parametrize("train", ["head", "all"])
def test_network_with_softmax_is_refused(odd, image_folder, train):
    with pytest.raises(zoo.BrokenBackbone, match=r"probabilities.*remove the softmax"):
        zoo.finetune("odd/softnet", data=image_folder, train=train, **QUICK)


def test_unlisted_auxiliary_head_is_refused(odd, image_folder):
    with pytest.raises(zoo.BrokenBackbone, match="output 1 still has 7 classes, the main one 3"):
        zoo.finetune("odd/left_behind", data=image_folder, train="all", **QUICK)


def test_build_and_transform_refuse_invalid_arguments(tinynet):
    backbone = zoo.get(tinynet)
    for given, message in (
        ({"classes": 0}, "0 classes"),
        ({"classes": -1}, "-1 classes"),
        ({"head": "mlp:8"}, "needs classes"),
    ):
        with pytest.raises(zoo.UsageError, match=message):
            backbone.build(**given)
    with pytest.raises(zoo.UsageError, match="a int has no preprocess"):
        zoo.transform(3)
    with pytest.raises(zoo.UsageError, match="did not build"):
        zoo.transform(nn.Linear(2, 2))


def test_build_with_weights_from_a_path(tinynet, tmp_path):
    backbone = zoo.get(tinynet)
    model = backbone.build(classes=3)
    path = zoo.save(model, tmp_path / "mine.safetensors", ["a", "b", "c"])
    again = backbone.build(classes=3, weights=path)
    assert torch.equal(again.head.fc.weight, model.head.fc.weight)


def test_each_text_is_parsed_once(tinynet, image_folder, monkeypatch):
    parsed = []
    for kind in (Policy, HeadSpec, Augmentation, Schedule):

        def parse(text, *further, kind=kind, original=kind.parse):
            parsed.append((kind, text))
            return original(text, *further)

        monkeypatch.setattr(kind, "parse", parse)
    texts = {"augment": "flip", "head": "mlp:8", "schedule": "constant", "train": "head"}
    run = zoo.finetune(tinynet, data=image_folder, **texts, **QUICK)
    assert run.record["plan"]["augment"] == "flip:0.5"
    assert sorted(text for _, text in parsed) == ["constant", "flip", "head", "mlp:8"]
    assert len({kind for kind, _ in parsed}) == 4
