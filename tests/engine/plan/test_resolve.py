"""Plan: explicit values, automatic values with reasons, invalid options."""

import dataclasses
import json

import pytest

import zoo
from zoo.api import plan
from zoo.engine.plan import resolve
from zoo.engine.runtime.device import available_cores
from zoo.options import Policy, Schedule


def test_every_value_has_a_reason(image_folder):
    resolved = plan("lite0", data=image_folder)
    rows = {name: (value, reason) for name, value, reason in resolved.rows()}
    assert all(reason for _, reason in rows.values()), rows
    assert rows["recipe"][0] == "probe"
    assert "head: lr" not in rows
    assert "installed" in rows["weights"][1]
    assert rows["head: keep_features"][0] == "yes"
    assert resolved.weights == "imagenet"
    assert resolved.data["images"] == {"train": 24, "val": 12, "test": 12}
    assert resolved.classes == ("flag", "mammal", "playing_card")


def test_explicit_values_are_in_the_plan(tinynet, image_folder):
    given = {
        "epochs": 3,
        "batch_size": 5,
        "micro_batch_size": 3,
        "optimizer": "sgd",
        "lr": 0.5,
        "momentum": 0.1,
        "weight_decay": 0.2,
        "schedule": Schedule("constant"),
        "precision": "bf16",
        "device": "cpu",
        "seed": 7,
        "workers": 1,
        "bad_images": "skip",
    }
    resolved = plan(tinynet, data=image_folder, weights="none", train="head", **given)
    (phase,) = resolved.phases
    for name, value in given.items():
        owner = phase if hasattr(phase, name) else resolved
        assert getattr(owner, name) == value
        key = f"phases.0.{name}" if owner is phase else name
        assert resolved.reasons[key].startswith("as given")


def test_device_determines_memory_format_and_precision(tinynet, image_folder):
    resolved = plan(tinynet, data=image_folder, weights="none", device="cpu")
    assert resolved.memory_format == "channels_last"
    assert "quickest" in resolved.reasons["memory_format"]
    assert ("memory_format", "channels_last") in [row[:2] for row in resolved.rows()]
    assert resolved.reasons["precision"].startswith("auto: ")


def test_random_weights_select_recipe_all(tinynet, image_folder):
    resolved = plan(tinynet, data=image_folder, weights="none")
    assert [phase.policy for phase in resolved.phases] == [Policy("all")]
    assert "no pretrained weights, so all layers train" in resolved.reasons["recipe"]


def test_two_phases_learning_rates_and_epochs(image_folder):
    first, second = plan("lite0", data=image_folder, recipe="head-then-all").phases
    assert (first.policy, second.policy) == (Policy("head"), Policy("all"))
    assert second.lr < first.lr
    assert second.keep_features is False
    given = plan("lite0", data=image_folder, recipe="head-then-all", lr=0.5, epochs=2)
    assert [phase.lr for phase in given.phases] == [0.5, pytest.approx(0.05)]
    assert [phase.epochs for phase in given.phases] == [2, 2]
    both = plan("lite0", data=image_folder, recipe="head-then-all", lr=(0.5, 0.2), epochs=(2, 1))
    assert [(phase.lr, phase.epochs) for phase in both.phases] == [(0.5, 2), (0.2, 1)]


def test_default_epochs_and_rates_of_each_kind_of_phase(image_folder):
    def phases(**options):
        resolved = plan("lite0", data=image_folder, **options).phases
        return [(phase.epochs, phase.lr, phase.weight_decay, phase.momentum) for phase in resolved]

    assert phases(recipe="head") == [(20, 0.001, 0.01, 0.9)]
    assert phases(recipe="all") == [(5, 0.0003, 0.01, 0.9)]
    assert phases(train="stages:1") == [(5, 0.0003, 0.01, 0.9)]
    assert phases(recipe="head-then-all") == [(20, 0.001, 0.01, 0.9), (5, 0.0001, 0.01, 0.9)]
    assert phases(weights="none") == [(12, 0.001, 0.01, 0.9)]
    rates = [lr for _, lr, *_ in phases(recipe="head-then-all", optimizer="sgd")]
    assert rates == pytest.approx([0.01, 0.001])


def test_sgd_default_learning_rate_is_tenfold(image_folder):
    adamw = plan("lite0", data=image_folder, recipe="head").phases[0]
    sgd = plan("lite0", data=image_folder, optimizer="sgd").phases[0]
    assert sgd.lr == pytest.approx(10 * adamw.lr)


def test_workers_read_many_augmented_images(tinynet, image_folder, monkeypatch):
    def workers(**options):
        return plan(tinynet, data=image_folder, weights="none", **options).workers

    assert workers(augment="flip") == 0  # 48 images are few
    monkeypatch.setattr(resolve, "MIN_IMAGES_FOR_WORKERS", 48)
    assert workers(augment="flip") == min(available_cores(), 8) > 0
    assert workers() == 0  # threads decode
    monkeypatch.setattr(resolve, "MIN_IMAGES_FOR_WORKERS", 49)
    assert workers(augment="flip") == 0


def test_plan_writes_no_files(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    resolved = plan("resnet18", data=image_folder)
    assert "to be downloaded" in resolved.reasons["weights"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "head", "recipe": "head"}, "exclude each other"),
        ({"train": "stages:0"}, "not a policy"),
        ({"recipe": "head-then-al"}, "did you mean head-then-all"),
        ({"optimizer": "adamv"}, "did you mean adam, adamw"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"device": "cudda"}, "did you mean cuda"),
        ({"device": "meta"}, "computes nothing"),
        ({"precision": "fp33"}, "did you mean fp32"),
        ({"bad_images": "skp"}, "did you mean skip"),
        ({"epochs": 0}, "positive"),
        ({"epochs": (1, 2)}, "2 values"),
        ({"lr": -1.0}, "positive"),
        ({"batch_size": 0}, "from 1"),
        ({"micro_batch_size": 0}, "from 1"),
        ({"batch_size": 8, "micro_batch_size": 9}, "more than the batch size, 8"),
        ({"workers": -1}, "from 0"),
        ({"seed": 2**64}, "from 0"),
        ({"weight_decay": float("nan")}, "from 0"),
        ({"lr": float("nan")}, "positive"),
        ({"epochs": ()}, "empty"),
        ({"momentum": 0.5}, "requires sgd"),
        ({"weights": "imagenett"}, "did you mean imagenet"),
    ],
)
def test_invalid_option_raises_usage_error_with_hint(image_folder, options, message):
    with pytest.raises(zoo.UsageError, match=message):
        plan("lite0", data=image_folder, **options)


def test_patterns_of_the_head_only_cache_features(image_folder):
    resolved = plan("lite0", data=image_folder, train="classifier")
    assert resolved.phases[0].keep_features is True
    assert plan("lite0", data=image_folder, train="conv_head").phases[0].keep_features is False


@pytest.mark.parametrize(
    ("policy", "modules", "text"),
    [
        ("head", ("fc",), "fc"),
        ("all", ("",), "the whole network"),
        ("stages:2", ("layer3", "layer4", "fc"), "layer3, layer4, fc"),
        ("layer4.*,layer4.0.bn?", ("layer4.0", "layer4.1", "fc"), "layer4.0, layer4.1, fc"),
        ("layer?.?.conv1", None, None),
    ],
)
def test_plan_names_the_modules_that_train(image_folder, policy, modules, text):
    options = {"weights": "none", "train": policy, "input_size": 64}
    resolved = plan("torchvision/resnet18", data=image_folder, **options)
    (phase,) = resolved.phases
    model = zoo.get("torchvision/resnet18").build(classes=3)
    trained = {id(parameter) for parameter in zoo.freeze(model, policy=policy)}
    named = [model.get_submodule(path) for path in phase.modules]
    assert {id(p) for module in named for p in module.parameters()} == trained
    assert all(path in dict(model.named_modules()) for path in phase.modules)
    (row,) = [row for row in resolved.rows() if row[0] == f"{phase.name}: modules"]
    if modules is None:  # 8 layers and the head, too long for a row
        assert len(phase.modules) == 9
        assert row[1].endswith(" ...")
    else:
        assert (phase.modules, row[1]) == (modules, text)
    reason = "last 2 of 5 stages, and the heads"
    assert (row[2] == reason) == (policy == "stages:2")


def test_too_many_stages_raises_usage_error(image_folder, tinynet):
    with pytest.raises(zoo.UsageError, match="the network has 2 stages"):
        zoo.finetune(tinynet, data=image_folder, weights="none", train="stages:9")


def test_number_of_classes_mismatch_raises_data_error(image_folder):
    with pytest.raises(zoo.DataError, match=r"classes=5, but .* has 3 classes: flag, mammal"):
        plan("lite0", data=image_folder, classes=5)


def test_unavailable_device_raises_environment_problem(image_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(zoo.EnvironmentProblem, match="device='auto'"):
        plan("lite0", data=image_folder, device="cuda")


def test_to_dict_has_values_as_text(tinynet, image_folder):
    given = {"schedule": "step:3,0.5", "augment": "crop:0.5,flip", "head": "mlp:8,dropout=0.25"}
    resolved = plan(tinynet, data=image_folder, weights="none", train="stages:1", epochs=1, **given)
    assert resolved.phases[0].schedule == Schedule("step", size=3, gamma=0.5)
    plain = resolved.to_dict()
    assert json.loads(json.dumps(plain))["phases"][0] == {
        "name": "stages:1",
        "policy": "stages:1",
        "epochs": 1,
        "optimizer": "adamw",
        "lr": 0.001,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "schedule": "step:3,0.5",
        "keep_features": False,
        "modules": ["body.0", "body.1", "head.fc", "aux"],
    }
    assert plain["head"] == "mlp:8,dropout=0.25"
    assert plain["augment"] == "crop:0.5,flip:0.5"
    assert plain["recipe"] == "stages:1"
    assert {*plain} == {*(field.name for field in dataclasses.fields(resolved)), "classes"}
    automatic = plan(tinynet, data=image_folder, weights="none").to_dict()
    assert (automatic["head"], automatic["augment"]) == ("linear", "none")
    assert automatic["phases"][0]["schedule"] == "cosine:0.1"


def test_augment_none_is_explicit(tinynet, image_folder):
    given = plan(tinynet, data=image_folder, weights="none", augment="none")
    assert given.augment is None
    assert given.reasons["augment"] == "as given"
    automatic = plan(tinynet, data=image_folder, weights="none")
    assert automatic.reasons["augment"] == "auto: off by default"
