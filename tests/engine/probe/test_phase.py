"""The recipe `probe`: when it is the default, its record, and its optimum."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

import zoo
from zoo.engine.probe.logistic import fit_probe
from zoo.modelfile import read_model

BASE = {"weights": "none", "device": "cpu"}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_probe_is_default_recipe_and_recorded(image_folder):
    run = zoo.finetune("lite0", data=image_folder, device="cpu")
    plan, probe = run.record["plan"], run.record["probe"]
    assert plan["recipe"] == "probe"
    assert [phase["optimizer"] for phase in plan["phases"]] == ["lbfgs"]
    assert probe["converged"]
    assert probe["strength"] in [tried["strength"] for tried in probe["searched"]]
    assert len(probe["accuracy"]) == 5
    assert run.metrics["val"]["top1"] >= 0.9
    measured = zoo.evaluate(run.path, image_folder, device="cpu", split="val")
    assert measured["loss"] == pytest.approx(run.metrics["val"]["loss"], rel=1e-5)
    history = (run.path / "history.csv").read_text().splitlines()
    assert len(history) == 2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"epochs": 1}, "--epochs"),
        ({"optimizer": "sgd"}, "--optimizer"),
        ({"lr": 0.1}, "--lr"),
        ({"batch_size": 8}, "--batch-size"),
        ({"schedule": "constant"}, "--schedule"),
        ({"augment": "flip"}, "augmented images differ between epochs"),
        ({"head": "mlp:8"}, "hidden layers"),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "a custom loss"),
    ],
)
def test_epoch_options_exclude_probe(image_folder, given, why):
    plan = zoo.plan("lite0", data=image_folder, **given)
    assert plan.recipe == "head"
    assert why in plan.reasons["recipe"]
    assert plan.phases[0].optimizer != "lbfgs"
    with pytest.raises(zoo.UsageError, match="recipe='probe' cannot be used"):
        zoo.plan("lite0", data=image_folder, recipe="probe", **given)


def test_probe_head_minimises_penalised_loss(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, recipe="probe", precision="fp32", **BASE)
    model = run.model("cpu")
    paths = [path for name in model.classes for path in (image_folder / "train" / name).iterdir()]
    features = model.features(paths).double()
    labels = torch.arange(3).repeat_interleave(8)
    head = model.module.head.fc
    deviation = features.std(dim=0, correction=0)
    logits = features @ head.weight.double().T + head.bias.double()
    residual = logits.softmax(dim=1) - nn.functional.one_hot(labels, 3)
    # The bias is not penalised, so predicted class frequencies are those of the labels.
    assert residual.sum(dim=0).abs().max() < 1e-3
    standard = (features - features.mean(dim=0)) / deviation
    pull = run.record["probe"]["strength"] * (residual.T @ standard)
    weight = head.weight.double() * deviation
    used = deviation > 1e-5
    assert weight.abs().max() > 1e-3
    torch.testing.assert_close(weight[:, used], -pull[:, used], rtol=1e-2, atol=1e-3)


def test_probe_on_views_equals_scikit_learn(tinynet, image_folder):
    options = {"recipe": "probe", "precision": "fp32", "seed": 3, **BASE}
    run = zoo.finetune(tinynet, data=image_folder, augment="flip:1", views=2, **options)
    model, transform = run.model("cpu"), zoo.transform(run.model("cpu"))
    folders = [image_folder / "train" / name for name in model.classes]
    images = [transform(path) for folder in folders for path in sorted(folder.iterdir())]
    # Both views of an image are its mirror image; they are consecutive rows.
    features = model.features(torch.stack(images).flip(-1)).repeat_interleave(2, dim=0)
    labels = torch.arange(3).repeat_interleave(8).repeat_interleave(2)

    def searched(**arguments):
        probe = fit_probe(features, labels, 3, **arguments)
        return np.array(probe.searched)[:, 1]

    losses = [tried["loss"] for tried in run.record["probe"]["searched"]]
    np.testing.assert_allclose(losses, searched(seed=3, views=2), rtol=1e-3)
    for other in ({"seed": 0, "views": 2}, {"seed": 3}):
        count = min(len(losses), len(wrong := searched(**other)))
        assert not np.allclose(losses[:count], wrong[:count], rtol=1e-2)

    scaled = StandardScaler().fit_transform(features.double().numpy())
    theirs = LogisticRegression(C=run.record["probe"]["strength"], tol=1e-10, max_iter=5000)
    theirs.fit(scaled, labels.numpy())
    head = model.module.head.fc
    ours = nn.functional.linear(features, head.weight, head.bias).softmax(1).detach()
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=1e-3)


def test_probe_uses_class_weights(image_folder):
    heavy = torch.tensor([100.0, 1.0, 0.01])
    heads = []
    for loss in (None, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=heavy)):
        run = zoo.finetune("lite0", data=image_folder, loss=loss, device="cpu")
        assert run.record["plan"]["recipe"] == "probe"
        tensors = read_model(run.path / "model.safetensors")[1].tensors
        heads.append(tensors["classifier.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2], rtol=0.1)


def test_network_with_layers_after_head_trains_epochs(image_folder):
    run = zoo.finetune("squeezenet1_1", data=image_folder, recipe="probe", input_size=64, **BASE)
    plan = run.record["plan"]
    assert plan["recipe"] == "head"
    assert plan["phases"][0]["optimizer"] == "adamw"
    assert "more after its head" in plan["reasons"]["recipe"]
    assert len((run.path / "history.csv").read_text().splitlines()) == 21
    assert run.record["probe"] is None


NO_BIAS = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone(
            name="nobias",
            builder="plugin_nobias:build",
            heads=(zoo.Head("1"),),
            preprocess=zoo.Preprocess(size=16, resize=16),
        )

    def build(weights=None):
        from torch import nn

        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(8, 5, bias=False),
        )
"""


def test_head_without_bias_trains_epochs(install, image_folder):
    install("nobias", NO_BIAS)
    run = zoo.finetune("nobias", data=image_folder, recipe="probe", **BASE)
    assert "no bias" in run.record["plan"]["reasons"]["recipe"]
    assert run.record["plan"]["phases"][0]["keep_features"] is True
