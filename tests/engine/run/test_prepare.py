"""Prepare: dry run, observers and `run.json` have the same plan; adjustments; errors."""

import dataclasses
import json
import multiprocessing
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import zoo
from tests.networks import pooled
from tests.published_weights import checkpoint
from zoo.engine.plan.options import Options
from zoo.engine.run.prepare import prepare
from zoo.engine.runtime import device
from zoo.registry.registry import load_registry
from zoo.terminal import Progress
from zoo.testing.fixtures import reset_caches

pytestmark = pytest.mark.usefixtures("in_empty_folder")
WATCHER = """
    import zoo

    plans = []

    @zoo.hookimpl
    def zoo_before_fit(event):
        plans.append(event.plan)
"""

FAILS_IN_BF16 = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("floatnet", "plugin_float:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        from torch import nn

        class Float(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Conv2d(3, 8, 3, 2)
                self.fc = nn.Linear(8, 7)

            def forward(self, x):
                x = self.body(x)
                # numpy has no bfloat16.
                assert len(x.detach().cpu().numpy()) == len(x)
                return self.fc(x.mean((2, 3)))

        return Float()
"""


def plain(value):
    """Return a value of an event as JSON types."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def files_in(*folders):
    """Return all files below some folders, except the catalogue of backbones."""
    return {
        (path, path.stat().st_mtime_ns)
        for folder in folders
        for path in Path(folder).rglob("*")
        if path.is_file() and "catalogue" not in str(path)
    }


@pytest.fixture
def three_plans(install, own_cache, tinynet, monkeypatch):
    """Return a function of a name and options that checks and returns the plan of all three.

    The dry run writes nothing, and is the same before and after the training.
    """
    install("watcher", WATCHER)
    # Avoids building the catalogue, which a new cache lacks.
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm")
    reset_caches()

    def resolve(name, **options):
        before = files_in(own_cache, ".")
        dry = json.loads(json.dumps(zoo.plan(name, **options).to_dict()))
        assert files_in(own_cache, ".") == before
        run = zoo.finetune(name, **options)
        written = json.loads((run.path / "run.json").read_text())["plan"]
        observed = plain(sys.modules["plugin_watcher"].plans[-1])
        assert dry == observed == written
        again = json.loads(json.dumps(zoo.plan(name, **options).to_dict()))
        # Features that are cached by now need no conversion.
        again["reasons"]["engine"] = written["reasons"]["engine"]
        assert again == written
        return written, run

    return resolve


CASES = {
    "probe": {"recipe": "probe"},
    "head": {"recipe": "head", "epochs": 1},
    "plain": {"epochs": 1},
    "all": {"train": "all", "epochs": 1},
    "head-then-all": {"recipe": "head-then-all", "epochs": (2, 1)},
    "stages": {"train": "stages:1", "epochs": 1},
    "patterns": {"train": "head.fc,aux", "epochs": 1},
    "other patterns": {"train": "body", "epochs": 1},
    "augment": {"train": "head", "augment": "flip", "epochs": 1},
    "views": {"train": "head", "augment": "crop,flip", "views": 2, "epochs": 2},
    "probe on views": {"recipe": "probe", "augment": "crop,flip", "views": 2},
    "cache_images": {"train": "all", "epochs": 2, "cache_images": True},
    "workers": {"train": "head", "epochs": 1, "workers": 1},
    "an own head": {"train": "head", "head": "mlp:8", "epochs": 1},
}
ON_FEATURES = ("probe", "head", "patterns", "views", "probe on views", "workers", "an own head")


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_dry_run_observers_and_record_have_one_plan(three_plans, image_folder, options):
    written, _ = three_plans("tiny/tinynet", data=image_folder, weights="none", **options)
    cached = [phase["keep_features"] for phase in written["phases"]]
    on_features = options in [CASES[name] for name in ON_FEATURES]
    assert cached == ([True, False] if len(cached) == 2 else [on_features])


@pytest.mark.parametrize(
    "options",
    [{"recipe": "probe"}, {"recipe": "head", "epochs": 1}, {"epochs": 1}],
    ids=["probe", "head", "plain"],
)
def test_layers_after_the_head_have_one_plan(three_plans, image_folder, options):
    given = {"data": image_folder, "weights": "none", "input_size": 32, "device": "cpu"}
    written, run = three_plans("torchvision/squeezenet1_1", **given, **options)
    (phase,) = written["phases"]
    assert (phase["optimizer"], phase["keep_features"]) == ("adamw", False)
    if options.get("recipe") == "probe":
        assert (written["recipe"], phase["epochs"]) == ("head", 20)
        assert written["reasons"]["recipe"] == "auto: the network does more after its head"
        assert run.record["probe"] is None


def test_bf16_failure_has_one_plan(three_plans, image_folder, install, monkeypatch):
    install("float", FAILS_IN_BF16)
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    given = {"data": image_folder, "weights": "none", "device": "cpu"}
    for options in ({"recipe": "probe"}, {"epochs": 1}):
        written, run = three_plans("float/floatnet", **given, **options)
        assert written["precision"] == "fp32"
        assert "the network fails in bf16" in written["reasons"]["precision"]
        assert zoo.load(run.path, "cpu").network.precision == "fp32"
    with pytest.raises(zoo.BrokenBackbone, match="BFloat16"):
        zoo.finetune("float/floatnet", precision="bf16", epochs=1, **given)


def test_bf16_failure_in_training_is_an_adjustment(three_plans, image_folder, install, monkeypatch):
    only = FAILS_IN_BF16.replace("assert len(x", "assert not self.training or len(x")
    install("float", only)
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    given = {
        "data": image_folder,
        "weights": "none",
        "device": "cpu",
        "epochs": 1,
        "augment": "flip",
    }
    written, run = three_plans("float/floatnet", train="all", **given)
    assert written["precision"] == "bf16"
    (adjustment,) = run.record["adjustments"]
    assert (adjustment["name"], adjustment["value"]) == ("precision", "fp32")
    assert adjustment["epoch"] == 1
    assert "the network fails in bf16" in adjustment["reason"]
    model = zoo.load(run.path, "cpu")
    assert model.network.precision == "fp32"
    measured = model.evaluate(image_folder, "val")["loss"]
    assert measured == pytest.approx(run.metrics["val"]["loss"], rel=1e-6)
    exact = zoo.finetune("float/floatnet", train="all", precision="fp32", **given)
    assert exact.metrics["val"] == run.metrics["val"]


def test_data_loaders_have_one_plan(three_plans, image_folder):
    transform = zoo.transform("tiny/tinynet")
    data = {
        split: DataLoader(ImageFolder(image_folder / split, transform), 6)
        for split in ("train", "val", "test")
    }
    for options in ({"train": "head"}, {"train": "all"}):
        written, _ = three_plans("tiny/tinynet", data=data, weights="none", epochs=1, **options)
        assert written["batch_size"] == 6
        assert written["phases"][0]["keep_features"] is False


ONLINE = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        weights = (zoo.Weights("web", url="URL", num_classes=7),)
        yield zoo.Backbone("webnet", "plugin_online:build", (zoo.Head("fc"),),
                           zoo.Preprocess(size=224, resize=36), weights=weights)
"""


def test_dry_run_downloads_no_weights_and_has_one_plan(
    three_plans, image_folder, install, file_server
):
    content = {"fc.weight": torch.ones(7, 3), "fc.bias": torch.zeros(7)}
    address, digits = file_server(checkpoint(content))
    install("online", ONLINE.replace("URL", f"{address}/good-{digits}.pth") + pooled(7))
    dry = zoo.plan("online/webnet", data=image_folder, device="cpu").to_dict()
    assert file_server.asked == []
    assert (dry["recipe"], dry["weights"]) == ("probe", "web")
    run = zoo.finetune("online/webnet", data=image_folder, device="cpu")
    assert file_server.asked != []
    assert run.record["plan"] == json.loads(json.dumps(dry))
    assert run.record["plan"]["reasons"]["weights"] == "auto: the default, to be downloaded"
    written, _ = three_plans("online/webnet", data=image_folder, device="cpu")
    assert written["reasons"]["weights"] == "auto: the default, in the cache"


@pytest.mark.slow
def test_demonstration_on_random_weights_has_one_plan(three_plans, install):
    published = ONLINE.replace("URL", "http://weights.invalid/good-01234567.pth")
    install("online", published + pooled(7))
    written, run = three_plans("online/webnet", device="cpu", epochs=1)
    assert (written["weights"], written["recipe"], written["demonstration"]) == (
        "none",
        "all",
        True,
    )
    assert "cannot reach weights.invalid" in written["reasons"]["weights"]
    assert written["preprocess"]["size"] == [96, 96]
    assert run.record["base"]["kind"] == "none"
    given, _ = three_plans("online/webnet", device="cpu", epochs=1, weights="none")
    assert given["preprocess"] == written["preprocess"]


def test_unwritable_feature_store_is_an_adjustment(three_plans, image_folder, own_cache):
    own_cache.mkdir()
    (own_cache / "features").write_text("a file, where a folder should be")
    written, run = three_plans("tiny/tinynet", data=image_folder, weights="none", recipe="probe")
    assert written["phases"][0]["keep_features"] is True
    (adjustment,) = run.record["adjustments"]
    assert (adjustment["name"], adjustment["value"]) == ("feature_store", "memory")


def test_image_cache_without_space_is_an_adjustment(tinynet, image_folder, monkeypatch):
    options = Options(data=image_folder, weights="none", train="all", epochs=1, cache_images=True)
    prepared = prepare(tinynet, options, load_registry(), Progress(quiet=True))
    from zoo.data import image_cache
    from zoo.engine.run.finetune import fit

    monkeypatch.setattr(image_cache, "IN_MEMORY", 0)
    monkeypatch.setattr(image_cache, "FREE_MARGIN", 1 << 62)
    record = fit(prepared).record
    assert record["plan"]["cache_images"] is True
    (adjustment,) = record["adjustments"]
    assert (adjustment["name"], adjustment["value"]) == ("cache_images", False)


def test_command_dry_run_prints_the_plan_of_the_run(cli, tinynet, image_folder, own_cache):
    options = ["--data", image_folder, "--weights", "none", "--recipe", "probe", "--json"]
    code, out, _ = cli("finetune", tinynet, *options, "--dry-run")
    assert code == 0
    assert json.loads(cli("finetune", tinynet, *options)[1])["plan"] == json.loads(out)


def test_prepared_is_frozen(tinynet, image_folder):
    options = Options(data=image_folder, weights="none", epochs=1)
    dry = prepare(tinynet, options, load_registry(), Progress(quiet=True), dry_run=True)
    assert dry.network is None
    assert [head.path for head in dry.backbone.heads] == ["head.fc", "aux"]
    for field in dataclasses.fields(dry):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(dry, field.name, None)


def test_errors_are_ordered_and_precede_the_run_folder(tinynet, image_folder):
    wrong = {
        "epochs": (0, zoo.UsageError, "positive"),
        "metrics": ({"top1": max}, zoo.UsageError, "cannot be named"),
        "weights": ("imagenett", zoo.UsageError, "imagenett"),
        "data": ("nowhere/", zoo.DataError, "nowhere"),
        "device": ("cuda:99", zoo.EnvironmentProblem, "cuda:99"),
    }
    right = {"epochs": 1, "metrics": None, "weights": "none", "data": image_folder}
    for name, (_, kind, message) in wrong.items():
        order = [*wrong]
        options = {
            other: right.get(other, "cpu") if order.index(other) < order.index(name) else bad
            for other, (bad, *_) in wrong.items()
        }
        for call in (zoo.plan, zoo.finetune):
            with pytest.raises(kind, match=message):
                call(tinynet, **options)
    with pytest.raises(zoo.WeightsError):
        zoo.plan(tinynet, data=image_folder, weights="none.safetensors", device="cuda:99")
    assert not Path("runs").exists()


def test_training_while_a_spawned_process_imports_is_refused(tinynet, image_folder, monkeypatch):
    """As in a script without a main guard; Python sets this attribute during the import."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(zoo.UsageError, match=r"under `if __name__ == \"__main__\":`"):
        zoo.finetune(tinynet, data=image_folder, weights="none", workers=1)
    assert not Path("runs").exists()
