"""Training and evaluation on tables and published data sets."""

import numpy as np
import pytest

import zoo
from tests.published_sets import publish, write_cifar
from zoo.data.decode import decode

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
