"""Feature cache: each image is computed once over runs, splits and hyperparameters."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

import zoo
from tests.devices import DEVICES
from zoo.cache import entries
from zoo.engine.features.cache import FeatureCache
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.store import FeatureStore
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.data.published import PublishedSplit
from zoo.tasks.classification.data.sources import open_data
from zoo.tasks.classification.task import ImageClassification
from zoo.testing.fixtures import reset_caches

TASK = ImageClassification()
QUICK = {"weights": "none", "device": "cpu", "recipe": "probe"}
CHECK = 2 * 12  # the val split, in eval and in training mode


def reader_for(network):
    return ImageReader(TASK.transform(network.preprocess), network.device, batch_size=1)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(image_folder, tmp_path):
    """Return a copy of the images that a test may modify."""
    return shutil.copytree(image_folder, tmp_path / "data")


def forwards(run) -> int:
    return run.record["backbone_forwards"]


def test_second_run_computes_no_features(tinynet, data):
    first = zoo.finetune(tinynet, data=data, **QUICK)
    assert forwards(first) == 24 + 12 + 12 + CHECK
    again = zoo.finetune(tinynet, data=data, **QUICK)
    assert forwards(again) == 0
    assert again.record["sha256"] == first.record["sha256"]
    loop = {"weights": "none", "device": "cpu", "train": "head"}
    assert forwards(zoo.finetune(tinynet, data=data, epochs=3, **loop)) == 0
    other = zoo.finetune(tinynet, data=data, epochs=7, optimizer="sgd", lr=0.1, **loop)
    assert forwards(other) == 0
    # Another split of the same images: all of val/ becomes training images.
    for path in sorted((data / "val").rglob("*.*")):
        path.rename(data / "train" / path.parent.name / path.name)
    shutil.rmtree(data / "val")
    moved = zoo.finetune(tinynet, data=data, **QUICK)
    assert moved.record["plan"]["data"]["images"]["train"] != 24
    assert forwards(moved) == 0


def test_only_new_or_changed_images_are_computed(tinynet, data):
    zoo.finetune(tinynet, data=data, **QUICK)
    some = sorted((data / "train/flag").iterdir())
    Image.new("RGB", (40, 40), "red").save(data / "train/flag/new.png")
    Image.new("RGB", (40, 40), "blue").save(some[0].with_suffix(".png"))
    assert forwards(zoo.finetune(tinynet, data=data, **QUICK)) == 2
    shutil.copyfile(some[1], data / "train/flag/copy.jpg")
    assert forwards(zoo.finetune(tinynet, data=data, **QUICK)) == 0


def test_image_replaced_at_equal_size_is_computed_again(tinynet, data):
    zoo.finetune(tinynet, data=data, **QUICK)
    image = min((data / "train/flag").iterdir())
    status = image.stat()
    Image.new("RGB", (9, 9), "red").save(image)
    image.write_bytes(image.read_bytes().ljust(status.st_size, b"\0"))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == status.st_size
    assert forwards(zoo.finetune(tinynet, data=data, **QUICK)) == 1


def test_weights_precision_and_size_change_fingerprint(tinynet, data):
    for options in ({}, {"seed": 1}, {"precision": "bf16"}, {"input_size": 24}):
        asked = {"precision": "fp32", **QUICK, **options}
        assert forwards(zoo.finetune(tinynet, data=data, **asked)) == 48 + CHECK
    assert len(entries("features")) == 4


def test_thread_count_changes_fingerprint(tinynet, data):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert forwards(zoo.finetune(tinynet, data=data, **QUICK)) == 48 + CHECK
    finally:
        torch.set_num_threads(before)
    assert len(entries("features")) == 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_do_not_depend_on_batch_composition(tinynet, precision, device):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    module = zoo.get(tinynet).build(classes=3)
    freeze(module)
    made = provenance_of(module)
    network = Network(
        module, made.backbone.heads, made.preprocess, torch.device(device), precision, TASK
    )
    columns = []
    for rows in (np.arange(50), np.arange(50)[::-1], np.array([3])):
        split = PublishedSplit("all", images[rows], (0,) * len(rows), ("x",) * len(rows))
        with FeatureStore(None) as store:
            cache = FeatureCache(network, reader_for(network), store, lambda it, *_: it, batch=16)
            features = cache.compute(split)
            columns.append({path: features.column(path, slice(None)) for path in network.paths})
            one = PublishedSplit("all", images[3:4], (0,), ("x",))
            pixels = cache.first_readable(one).inputs
            expected = cache.engine.compute(pixels)
    for path in network.paths:
        assert torch.equal(columns[0][path], columns[1][path].flip(0))
        assert torch.equal(columns[0][path][3:4], columns[2][path])
        assert torch.equal(columns[2][path], expected[path].flatten(1))


def test_storage_shortfall_reports_missing_space(tinynet, image_folder):
    module = zoo.get(tinynet).build(classes=3)
    freeze(module)
    made = provenance_of(module)
    device = torch.device("cpu")
    network = Network(module, made.backbone.heads, made.preprocess, device, "fp32", TASK)
    val = open_data(image_folder).splits["val"]
    with FeatureStore("a") as store:
        cache = FeatureCache(network, reader_for(network), store, lambda it, *_: it)
        assert cache.incompatibility(val) is None
        assert store.row_bytes == 4 * (16 + 8) + 32
        assert cache.storage_shortfall(48) is None
        assert store.problem is None
        assert "and less is free" in cache.storage_shortfall(10**15)


def test_fingerprint_covers_network_and_settings(tinynet):
    def name(change=lambda module: None, precision="fp32", batch=32) -> str:
        torch.manual_seed(0)
        module = zoo.get(tinynet).build(classes=3)
        change(module)
        made = provenance_of(module)
        device = torch.device("cpu")
        network = Network(module, made.backbone.heads, made.preprocess, device, precision, TASK)
        return network_fingerprint(network, batch)[0]

    def touch(tensor):
        tensor.data.view(-1)[0] += 1e-6

    assert name() == name()
    assert name(lambda module: touch(module.head.fc.weight)) == name()
    others = [
        name(lambda module: touch(module.stem[0].weight)),
        name(lambda module: touch(module.stem[1].running_mean)),
        name(lambda module: setattr(module.stem[1], "eps", 1e-4)),
        name(lambda module: setattr(module.stem, "2", torch.nn.ReLU6())),
        name(precision="bf16"),
        name(batch=16),
    ]
    assert len({name(), *others}) == 7


def test_augmented_views_are_cached(tinynet, data):
    asked = {**QUICK, "augment": "crop,flip", "views": 3}
    first = zoo.finetune(tinynet, data=data, **asked)
    assert forwards(first) == 3 * 24 + 12 + 12 + CHECK
    assert first.record["plan"]["views"] == 3
    assert forwards(zoo.finetune(tinynet, data=data, **asked)) == 0
    more = zoo.finetune(tinynet, data=data, **{**asked, "views": 4})
    assert forwards(more) == 24
    loop = {"weights": "none", "device": "cpu", "train": "head", "epochs": 8}
    seen = zoo.finetune(tinynet, data=data, augment="crop,flip", views=4, **loop)
    assert forwards(seen) == 0
    for wrong, message in (
        ({"views": 3}, "augmented"),
        ({"views": 3, "augment": "flip", "train": "all"}, "requires that only heads train"),
        ({"views": 0, "augment": "flip"}, "views"),
    ):
        with pytest.raises(zoo.UsageError, match=message):
            zoo.plan(tinynet, data=data, weights="none", **wrong)


def features_of_epochs(backbone, data, views, epochs):
    """Return the main head's inputs in each epoch, as a set of rows."""
    inputs, steps = [], []

    def record(module, arguments):
        if isinstance(module, torch.nn.Linear) and module.in_features == 16:
            inputs.append(arguments[0].detach().clone())

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(record),
        register_optimizer_step_pre_hook(lambda *_: steps.append(inputs[-1])),
    ]
    asked = {"train": "head", "augment": "crop,flip", "views": views, "epochs": epochs}
    try:
        zoo.finetune(backbone, data=data, batch_size=8, weights="none", device="cpu", **asked)
    finally:
        for handle in handles:
            handle.remove()
    assert len(steps) == 3 * epochs
    rows = [torch.cat(steps[3 * epoch : 3 * epoch + 3]).tolist() for epoch in range(epochs)]
    return [set(map(tuple, each)) for each in rows]


def test_epochs_cycle_through_views(tinynet, data):
    seen = features_of_epochs(tinynet, data, views=3, epochs=7)
    assert all(len(rows) == 24 for rows in seen)
    first, second, third = seen[:3]
    assert first.isdisjoint(second | third)
    assert second.isdisjoint(third)
    assert seen[3:] == [first, second, third, first]
    assert features_of_epochs(tinynet, data, views=2, epochs=3) == [first, second, first]


def test_unreadable_images_are_skipped_on_every_run(tinynet, data):
    broken = data / "train/flag/broken.png"
    broken.write_bytes(b"\x89PNG nothing")
    for expected in (48 + CHECK, 0):
        run = zoo.finetune(tinynet, data=data, bad_images="skip", **QUICK)
        assert forwards(run) == expected
        assert list(run.record["bad_images"]) == [str(broken)]
    with pytest.raises(zoo.DataError, match=r"broken\.png"):
        zoo.finetune(tinynet, data=data, **QUICK)


def test_cleared_features_are_computed_again(tinynet, data, cli):
    zoo.finetune(tinynet, data=data, **QUICK)
    assert entries("features")[0].images == 48
    assert cli("cache", "clear", "features")[0] == 0
    assert entries("features") == []
    assert forwards(zoo.finetune(tinynet, data=data, **QUICK)) == 48 + CHECK


def test_cache_size_is_limited(tinynet, data, cli, tmp_path, monkeypatch):
    home = tmp_path / "config/zoo"
    home.mkdir(parents=True)
    (home / "registry.toml").write_text("schema = 1\n[defaults]\ncache_gib = 0\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    reset_caches()
    zoo.finetune(tinynet, data=data, seed=0, **QUICK)
    # Features of the last training remain until the next needs space.
    (first,) = entries("features")
    options = [f"--{key}={value}" for key, value in QUICK.items()]
    code, _, err = cli("finetune", tinynet, f"--data={data}", "--seed=1", *options)
    assert code == 0, err
    assert f"removed features of {first.name} (48 images), the least recently used in" in err
    (second,) = entries("features")
    assert second.path != first.path
