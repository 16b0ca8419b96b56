"""Class weights of segmentation: by name, and balanced over the labelled pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

import zoo
from zoo.modelfile import read_model
from zoo.options.class_weights import ClassWeights
from zoo.tasks.segmentation.schema import IGNORE_INDEX
from zoo.tasks.segmentation.task import SemanticSegmentation

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "epochs": 1, "batch_size": 8}


def test_balanced_weights_count_labelled_pixels(scenes, tmp_path):
    copy = tmp_path / "scenes"
    for name in ("images", "masks"):
        (copy / name).mkdir(parents=True)
        for path in sorted((scenes / name).iterdir()):
            (copy / name / path.name).symlink_to(path)
    (copy / "classes.txt").symlink_to(scenes / "classes.txt")
    first = copy / "masks/0000.png"
    ignored = np.array(Image.open(first))
    first.unlink()
    ignored[:30] = IGNORE_INDEX
    Image.fromarray(ignored).save(first)

    task = SemanticSegmentation()
    data = task.open_data(copy)
    train = data.splits["train"]
    pixels = np.concatenate([np.array(train.mask(n)).ravel() for n in range(len(train))])
    pixels = pixels[pixels != IGNORE_INDEX]
    expected = compute_class_weight("balanced", classes=np.arange(4), y=pixels)
    loss = task.weighted_loss(data, ClassWeights.read("balanced"), 0.0)
    assert loss.class_weights == pytest.approx(expected.tolist())
    assert loss.ignore_index == IGNORE_INDEX


def test_class_weights_train_as_the_loss_of_torch(tinyfcn, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**QUICK, "data": scenes}
    given = zoo.finetune(tinyfcn, class_weights={"disc": 9.0}, label_smoothing=0.1, **options)
    weight = torch.tensor([1.0, 9.0, 1.0, 1.0])
    loss = torch.nn.CrossEntropyLoss(weight, ignore_index=IGNORE_INDEX, label_smoothing=0.1)
    by_hand = zoo.finetune(tinyfcn, loss=loss, **options)
    one, other = (read_model(run.path / "model.safetensors")[1].tensors for run in (given, by_hand))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert given.record["plan"]["class_weights"]["disc"] == 9.0
