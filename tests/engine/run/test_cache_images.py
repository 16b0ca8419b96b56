"""`--cache-images`: each image is decoded once, the model file is the same."""

import json
import shutil

import pytest
import torch
from torch.utils.data import TensorDataset

import zoo
from zoo.api import plan
from zoo.engine.plan import resolve
from zoo.testing.fixtures import reset_caches

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8, "epochs": 3}


@pytest.mark.parametrize("augment", [None, "crop,flip"])
@pytest.mark.parametrize("recipe", ["all", "head-then-all"])
def test_model_file_independent_of_cache_and_workers(tinynet, image_folder, recipe, augment):
    options = {**QUICK, "data": image_folder, "recipe": recipe, "augment": augment}
    digests = {
        zoo.finetune(tinynet, **options, cache_images=cache, workers=workers).record["sha256"]
        for cache, workers in ((False, 0), (True, 0), (True, 2))
    }
    assert len(digests) == 1


def test_later_epochs_read_from_the_cache(tinynet, image_folder, tmp_path, install, monkeypatch):
    """A plugin deletes the files after the first epoch; the model file is the same."""
    source = """
        import os, shutil
        import zoo

        @zoo.hookimpl
        def zoo_after_epoch(event):
            for split in ("train", "val"):
                shutil.rmtree(os.path.join(os.environ["DELETED"], split), ignore_errors=True)
    """
    whole = zoo.finetune(tinynet, data=image_folder, **QUICK)
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    install("deleter", source)
    reset_caches()
    monkeypatch.setenv("DELETED", str(copy))
    run = zoo.finetune(tinynet, data=copy, cache_images=True, **QUICK)
    assert not (copy / "train").exists()
    assert run.record["sha256"] == whole.record["sha256"]


def test_bad_images_are_reported_once(tinynet, image_folder, tmp_path, cli):
    broken = tmp_path / "broken"
    shutil.copytree(image_folder, broken)
    unreadable = min((broken / "train" / "flag").iterdir())
    unreadable.write_bytes(b"no image")
    options = ["--data", broken, "--weights", "none", "--device", "cpu", "--epochs", "2"]
    runs = []
    for cache in ([], ["--cache-images"]):
        code, out, err = cli(
            "finetune", tinynet, *options, "--bad-images", "skip", "--json", *cache
        )
        assert code == 0, err
        assert err.count(str(unreadable.relative_to(broken))) == 1
        runs.append(json.loads(out))
    assert [list(run["bad_images"]) for run in runs] == [[str(unreadable)]] * 2
    assert runs[0]["sha256"] == runs[1]["sha256"]
    assert runs[1]["plan"]["cache_images"] is True


def test_plan_reports_cached_splits_and_location(tinynet, image_folder, monkeypatch):
    def resolve_cache(**options):
        resolved = plan(tinynet, data=image_folder, **QUICK, **options)
        return resolved.cache_images, resolved.reasons["cache_images"]

    size = 36 * 32 * 32 * 3 / 2**20
    assert resolve_cache() == (False, "auto: off by default")
    assert resolve_cache(cache_images=True) == (
        True,
        f"as given: train and val, {size:.1f} MiB in memory",
    )
    cached, reason = resolve_cache(cache_images=True, augment="flip")
    assert cached
    assert reason.startswith("as given: val, ")
    assert reason.endswith("augmented images differ between epochs")
    monkeypatch.setattr(resolve, "storage_location", lambda size: None)
    assert resolve_cache(cache_images=True) == (
        False,
        f"neither memory nor disk has {size:.1f} MiB for prepared images",
    )


def test_dataset_cannot_be_cached(tinynet):
    dataset = TensorDataset(torch.randn(9, 3, 32, 32), torch.arange(9) % 3)
    with pytest.raises(zoo.UsageError, match="may differ each time"):
        plan(tinynet, data=dataset, weights="none", cache_images=True)
