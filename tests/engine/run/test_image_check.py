"""Images are read before the first step: unreadable ones, duplicates, and incomplete files."""

import json
import shutil
from pathlib import Path

import pytest

import zoo

QUICK = {"weights": "none", "batch_size": 8, "lr": 0.05, "optimizer": "adamw"}


@pytest.fixture
def folder(image_folder, tmp_path, own_cache):
    root = tmp_path / "photos"
    shutil.copytree(image_folder, root)
    return root


def images(root: Path, split: str, name: str = "flag") -> list[Path]:
    return sorted((root / split / name).iterdir())


@pytest.mark.parametrize("recipe", ["head", "all", "head-then-all"])
def test_unreadable_images_of_all_splits_are_named(tinynet, folder, cli, recipe):
    bad = [images(folder, "train")[1], images(folder, "val")[0], images(folder, "test")[2]]
    for path in bad[:2]:
        path.write_bytes(path.read_bytes()[:300])
    bad[2].write_bytes(b"")
    epochs = ",".join("1" * (2 if "then" in recipe else 1))
    options = ("--weights", "none", "--recipe", recipe, "--epochs", epochs, "--batch-size", "8")
    code, _, err = cli("finetune", tinynet, "--data", folder, *options)
    assert code == 3
    line = err.splitlines()[-1]
    assert "3 of 48 images cannot be read: truncated (2 images): " in line
    assert all(path.name in line for path in bad)
    assert "--bad-images skip" in line
    # No epoch was trained.
    assert "1/1" not in err
    assert not Path("runs").exists()


def test_first_batch_for_observers_names_no_fewer(tinynet, folder, watcher):
    bad = [images(folder, "train")[1], images(folder, "val")[0]]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(zoo.DataError, match="2 of 48 images cannot be read") as caught:
        zoo.finetune(tinynet, data=folder, recipe="head", epochs=1, **QUICK)
    assert all(str(path) in caught.value.message for path in bad)
    assert any(isinstance(event, zoo.FirstBatchRead) for event in watcher())


def test_test_split_without_readable_image_is_not_evaluated(tinynet, folder, cli):
    for path in (folder / "test").rglob("*.jpg"):
        path.write_bytes(b"no image")
    shutil.rmtree(folder / "val")
    options = ("--val", "0", "--weights", "none", "--train", "all", "--epochs", "1")
    code, _, err = cli("finetune", tinynet, "--data", folder, *options, "--bad-images", "skip")
    assert code == 0, err
    assert "no image of the test split can be read, so it is not evaluated" in err
    run = json.loads((Path("runs/tinynet-1") / "run.json").read_text())
    assert run["metrics"] == {}
    assert len(run["bad_images"]) == 12


def test_cached_features_do_not_hide_unreadable_images(tinynet, folder):
    zoo.finetune(tinynet, data=folder, epochs=1, **QUICK)
    bad = [images(folder, "train")[1], images(folder, "val")[0]]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(zoo.DataError, match="2 of 48 images cannot be read") as caught:
        zoo.finetune(tinynet, data=folder, epochs=1, **QUICK)
    assert all(str(path) in caught.value.message for path in bad)


def test_evaluate_names_all_unreadable_images(tinynet, folder, cli):
    run = zoo.finetune(tinynet, data=folder, epochs=1, **QUICK)
    bad = images(folder, "test")[1:3]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(zoo.DataError, match="2 of 12 images cannot be read") as caught:
        zoo.evaluate(run.path, folder)
    assert all(str(path) in caught.value.message for path in bad)
    code, out, err = cli("evaluate", run.path, "--data", folder, "--bad-images", "skip")
    assert (code, "images  10" in out) == (0, True)
    line = "skipped: not an image that zoo reads (2 images): "
    assert f"{line}{bad[0]}, {bad[1]}" in err


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_duplicates_are_reported_before_training(tinynet, folder, cli, recipe):
    leaked, moved = images(folder, "train")[0], images(folder, "train", "mammal")[0]
    shutil.copy(leaked, folder / "val/flag/renamed.jpg")
    shutil.copy(leaked, folder / "test/flag/again.jpg")
    shutil.copy(moved, folder / "train/playing_card/twice.jpg")
    options = ("--weights", "none", "--recipe", recipe, "--epochs", "1", "--batch-size", "8")
    code, out, err = cli("finetune", tinynet, "--data", folder, *options, "--json")
    assert code == 0
    lines = err.splitlines()
    found = [n for n, line in enumerate(lines) if "is in train too" in line or "several" in line]
    assert len(found) == 3
    name = leaked.relative_to(folder)
    assert lines[found[0]].endswith(
        f"too good: {name} = val/flag/renamed.jpg = test/flag/again.jpg"
    )
    assert "again.jpg" in lines[found[1]]
    assert "twice.jpg (playing_card)" in lines[found[2]]
    assert max(found) < next(n for n, line in enumerate(lines) if "1/1" in line)
    record = json.loads(out)["duplicates"]
    assert [[each["split"] for each in group] for group in record["across_splits"]] == [
        ["train", "val", "test"]
    ]
    assert [each["class"] for each in record["across_classes"][0]] == ["mammal", "playing_card"]


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_incomplete_jpeg_is_used_with_notice(tinynet, folder, cli, recipe):
    path = images(folder, "train")[0]
    path.write_bytes(path.read_bytes()[:-2])
    options = ("--weights", "none", "--recipe", recipe, "--epochs", "1", "--batch-size", "8")
    code, out, err = cli("finetune", tinynet, "--data", folder, *options, "--json")
    assert code == 0
    (line,) = [line for line in err.splitlines() if "lacks its last bytes" in line]
    assert line.endswith(f": {path.relative_to(folder)}")
    assert json.loads(out)["bad_images"] == {}


def test_evaluate_and_predict_report_incomplete_images(tinynet, folder, cli):
    run = zoo.finetune(tinynet, data=folder, epochs=1, **QUICK)
    path = images(folder, "test")[0]
    path.write_bytes(path.read_bytes()[:-2])
    code, out, err = cli("evaluate", run.path, "--data", folder, "--json")
    assert code == 0
    assert "1 JPEG lacks its last bytes" in err
    assert json.loads(out)["incomplete_images"] == [str(path)]
    code, out, err = cli("predict", run.path, folder / "test", "--json")
    assert (code, len(json.loads(out))) == (0, 12)
    assert f"1 JPEG lacks its last bytes, read without them: {path}" in err


def test_embed_names_unreadable_images_of_all_splits(tinynet, folder, cli):
    run = zoo.finetune(tinynet, data=folder, epochs=1, **QUICK)
    bad = [images(folder, "train")[0], images(folder, "test")[0]]
    for path in bad:
        path.write_bytes(b"")
    code, _, err = cli("embed", run.path, "--data", folder, "--out", "features.npy")
    assert code == 3
    assert "2 of 48 images cannot be read" in err
    assert all(str(path) in err for path in bad)
