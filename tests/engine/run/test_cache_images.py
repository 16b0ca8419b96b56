"""`--cache-images`: the same model file, with every image decoded once."""

import json
import shutil

import pytest
import torch
from torch.utils.data import TensorDataset

import zoo
from zoo.api import plan
from zoo.engine.plan import resolve
from zoo.testing.fixtures import reset_caches

QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8, "epochs": 3}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("augment", [None, "crop,flip"])
@pytest.mark.parametrize("recipe", ["all", "head-then-all"])
def test_the_same_bytes_whatever_the_workers(tinynet, pictures, recipe, augment):
    options = {**QUICK, "data": pictures, "recipe": recipe, "augment": augment}
    digests = {
        zoo.finetune(tinynet, **options, cache_images=cache, workers=workers).record["sha256"]
        for cache, workers in ((False, 0), (True, 0), (True, 2))
    }
    assert len(digests) == 1


def test_later_epochs_open_no_file(tinynet, pictures, tmp_path, install, monkeypatch):
    """A plugin takes the files away after the first epoch; training goes on to the same end."""
    source = """
        import os, shutil
        import zoo

        @zoo.hookimpl
        def zoo_after_epoch(event):
            for split in ("train", "val"):
                shutil.rmtree(os.path.join(os.environ["GOING"], split), ignore_errors=True)
    """
    whole = zoo.finetune(tinynet, data=pictures, **QUICK)
    going = tmp_path / "going"
    shutil.copytree(pictures, going)
    install("taker", source)
    reset_caches()
    monkeypatch.setenv("GOING", str(going))
    run = zoo.finetune(tinynet, data=going, cache_images=True, **QUICK)
    assert not (going / "train").exists()
    assert run.record["sha256"] == whole.record["sha256"]


def test_bad_images_are_told_once(tinynet, pictures, tmp_path, cli):
    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    victim = min((broken / "train" / "flag").iterdir())
    victim.write_bytes(b"no picture")
    options = ["--data", broken, "--weights", "none", "--device", "cpu", "--epochs", "2"]
    runs = []
    for cache in ([], ["--cache-images"]):
        code, out, err = cli(
            "finetune", tinynet, *options, "--bad-images", "skip", "--json", *cache
        )
        assert code == 0, err
        assert err.count(str(victim)) == 1
        runs.append(json.loads(out))
    assert [list(run["bad_images"]) for run in runs] == [[str(victim)]] * 2
    assert runs[0]["sha256"] == runs[1]["sha256"]
    assert runs[1]["plan"]["cache_images"] is True


def test_the_plan_says_what_is_kept_and_where(tinynet, pictures, monkeypatch):
    def said(**options):
        resolved = plan(tinynet, data=pictures, **QUICK, **options)
        return resolved.cache_images, resolved.reasons["cache_images"]

    size = 36 * 32 * 32 * 3 / 2**20
    assert said() == (False, "auto: not asked for")
    assert said(cache_images=True) == (True, f"as given: train and val, {size:.1f} MiB in memory")
    kept, why = said(cache_images=True, augment="flip")
    assert kept
    assert why.startswith("as given: val, ")
    assert why.endswith("augmented images change")
    monkeypatch.setattr(resolve, "storage_location", lambda size: None)
    assert said(cache_images=True) == (
        False,
        f"there is no room for {size:.1f} MiB of prepared images",
    )


def test_a_dataset_of_ones_own_is_not_kept(tinynet):
    dataset = TensorDataset(torch.randn(9, 3, 32, 32), torch.arange(9) % 3)
    with pytest.raises(zoo.UsageError, match="other images each time"):
        plan(tinynet, data=dataset, weights="none", cache_images=True)
