"""`--batch-size 1`: trains where the network can, and is refused where batch norm cannot."""

import shutil

import pytest
import torch
from torch import nn

import zoo
from zoo.modelfile import read_model

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "epochs": 1, "batch_size": 1}

POOLED = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("pooled", "plugin_pooled:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        from torch import nn

        return Pooled()

    from torch import nn  # noqa

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
            self.norm = nn.BatchNorm1d(8)
            self.fc = nn.Linear(8, 7)

        def forward(self, x):
            return self.fc(self.norm(self.body(x).mean((2, 3))))
"""


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def by_hand(backbone, folder, network, lr):
    """Train on one image a step, in zoo's order, in plain torch."""
    from zoo.seeding import epoch_order

    transform = zoo.transform(network)
    samples = [
        (transform(path), label)
        for label, name in enumerate(("flag", "mammal", "playing_card"))
        for path in sorted((folder / "train" / name).iterdir())
    ]
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    network.train()
    for index in epoch_order(len(samples), 0, 1):
        image, label = samples[index]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(image[None]), torch.tensor([label]))
        loss.backward()
        optimizer.step()
    return network.state_dict()


def test_batch_of_one_trains_as_a_plain_loop(plainnet, image_folder):
    options = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}
    run = zoo.finetune(
        plainnet, data=image_folder, train="all", schedule="constant", **options, **QUICK
    )
    start = zoo.get(plainnet).build(classes=3)
    initial = zoo.finetune(
        plainnet,
        data=image_folder,
        train="all",
        schedule="constant",
        out="still",
        **{**options, "lr": 1e-30},
        **QUICK,
    )
    start.load_state_dict(read_model(initial.path / "model.safetensors")[1].tensors)
    expected = by_hand(plainnet, image_folder, start, 0.01)
    trained = read_model(run.path / "model.safetensors")[1].tensors
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-4, atol=1e-5)


def test_batch_norm_over_pixels_trains_on_one_image(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, train="all", **QUICK)
    assert run.record["plan"]["batch_size"] == 1
    assert run.metrics["val"]["images"] == 12


def test_batch_norm_over_one_value_is_refused(cli, install, image_folder):
    install("pooled", POOLED)
    options = ("finetune", "pooled/pooled", "--data", image_folder, "--weights", "none")
    code, _, err = cli(*options, "--train", "all", "--batch-size", "1", "--out", "run")
    assert code == 2
    assert "--batch-size 1: batch norm norm has no variance over one value of each channel" in err
    assert "give at least 2, or --train head" in err


def test_frozen_batch_norm_trains_heads_on_one_image(install, image_folder):
    install("pooled", POOLED)
    run = zoo.finetune("pooled/pooled", data=image_folder, train="head", **QUICK)
    augmented = zoo.finetune(
        "pooled/pooled", data=image_folder, train="head", augment="flip", **QUICK
    )
    for each in (run, augmented):
        tensors = read_model(each.path / "model.safetensors")[1].tensors
        assert torch.equal(tensors["norm.running_mean"], torch.zeros(8))


def test_unreadable_image_leaves_no_empty_step(plainnet, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "data")
    path = next((tmp_path / "data/train/flag").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    run = zoo.finetune(plainnet, data=tmp_path / "data", train="all", bad_images="skip", **QUICK)
    assert len(run.record["bad_images"]) == 1
    assert run.record["metrics"]["val"]["loss"] < 10
