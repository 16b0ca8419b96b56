"""Training and evaluation on tables and published data sets."""

import numpy as np
import pytest
import torch

import zoo
from tests.published_sets import publish, write_cifar
from zoo.data.decode import decode
from zoo.data.schema import Schema
from zoo.data.split import FileSplit
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.sources import ImageSource, PhaseData
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.task import ImageClassification

QUICK = {"weights": "none", "device": "cpu", "epochs": 1, "batch_size": 8}


@pytest.fixture
def cifar(image_folder, tmp_path, monkeypatch):
    """The three classes of `image_folder` in the files of CIFAR-10."""
    names = sorted(path.name for path in (image_folder / "train").iterdir())

    def batch(split, first, last):
        chosen = [sorted((image_folder / split / name).iterdir())[first:last] for name in names]
        images = [np.asarray(decode(path).resize((32, 32))) for paths in chosen for path in paths]
        return np.stack(images), [label for label, paths in enumerate(chosen) for _ in paths]

    parts = [batch("train", first, first + 1) for first in range(5)]
    root = write_cifar(tmp_path / "data", [*parts, batch("test", 0, 4)], names)
    publish(monkeypatch, root)
    return f"cifar10:{root}"


@pytest.fixture
def table(image_folder, tmp_path):
    """A table of the training images of `image_folder`."""
    lines = [f"{path},{path.parent.name}\n" for path in sorted(image_folder.glob("train/*/*"))]
    (tmp_path / "labels.csv").write_text("".join(["path,label\n", *lines]))
    return str(tmp_path / "labels.csv")


@pytest.mark.parametrize("kind", ["cifar", "table"])
@pytest.mark.parametrize("train", ["all", "head"])
def test_evaluate_equals_metrics_of_training(kind, train, tinynet, request, tmp_path, monkeypatch):
    source = request.getfixturevalue(kind)
    monkeypatch.chdir(tmp_path)
    run = zoo.finetune(tinynet, data=source, train=train, seed=3, **QUICK)
    model = run.model(device="cpu")
    assert model.classes == ("flag", "mammal", "playing_card")
    for split in ("val", "test") if kind == "cifar" else ("val",):
        values = model.evaluate(source, split)
        assert (values["split"], values["bad_images"]) == (split, {})
        assert values["confusion"] == run.metrics[split]["confusion"]
        assert values["loss"] == pytest.approx(run.metrics[split]["loss"])
    assert model.evaluate(source)["split"] == ("test" if kind == "cifar" else "val")


def test_table_trains_like_its_folder(table, image_folder, tinynet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        f"{path},{path.parent.name},{path.parent.parent.name}"
        for path in sorted(image_folder.glob("*/*/*"), reverse=True)
    ]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    runs = [
        zoo.finetune(tinynet, data=data, **QUICK) for data in (image_folder, tmp_path / "all.csv")
    ]
    assert runs[0].metrics == runs[1].metrics


def test_invalid_source_is_refused(tinynet):
    with pytest.raises(zoo.UsageError, match="did you mean cifar10"):
        zoo.finetune(tinynet, data="cifra10:x", **QUICK)
    with pytest.raises(zoo.DataError, match="x does not exist"):
        zoo.finetune(tinynet, data="cifar10:x", **QUICK)


def test_single_image_is_left_out_only_beside_unreadable_ones(tinynet, image_folder, tmp_path):
    module = zoo.get(tinynet).build(classes=1)
    made, cpu = provenance_of(module), torch.device("cpu")
    network = Network(
        module, made.backbone.heads, made.preprocess, cpu, "fp32", ImageClassification()
    )
    (tmp_path / "broken.jpg").write_text("no image")
    image = str(next((image_folder / "train" / "flag").iterdir()))
    for paths, sizes in (((image,), [1]), ((image, "broken.jpg"), []), ((image,) * 3, [3])):
        split = FileSplit("train", tmp_path, paths, (0,) * len(paths))
        data = PhaseData(split, split, Schema(("flag",)), seed=0, batch_size=2)
        reader = ImageReader(network.task.transform(made.preprocess), cpu, 2, bad_images="skip")
        batches = ImageSource(network, data, reader).train_batches(1)
        assert [len(targets) for _, _, targets in batches] == sizes
