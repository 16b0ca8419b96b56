"""`zoo check`: what is known of a data set, without training."""

import json
import shutil

import pytest
from PIL import Image

from tests.tasks.segmentation.scenes import SHAPES, write_scenes
from zoo.tasks.classification.task import ImageClassification


@pytest.fixture
def photos(image_folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(image_folder, root)
    return root


def test_check_reports_counts_sizes_and_formats(photos, cli):
    shutil.rmtree(photos / "test")
    first = sorted((photos / "train/flag").iterdir())[0]
    with Image.open(first) as image:
        image.resize((640, 480)).convert("L").save(first.with_suffix(".png"))
    first.unlink()
    (photos / "train/flag/notes.txt").write_text("not an image")
    code, out, err = cli("check", photos, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    classes = ["flag", "mammal", "playing_card"]
    assert report["task"] == "image-classification"
    assert report["classes"] == classes
    assert report["images"] == {"train": 24, "val": 12}
    assert report["counts"] == {
        "train": dict.fromkeys(classes, 8),
        "val": dict.fromkeys(classes, 4),
    }
    assert report["sizes"]["largest"] == [640, 480]
    assert report["formats"] == {"JPEG RGB": 35, "PNG L": 1}
    assert report["notices"] == ["skipped in train/: 1 file that are not images: .txt (1)"]
    assert report["bad"] == {}
    code, out, _ = cli("check", photos)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["CLASS", "TRAIN", "VAL"] in lines
    assert ["mammal", "8", "4"] in lines
    assert ["all", "images", "24", "12"] in lines
    assert "PNG L (1)" in out


def test_check_names_every_bad_and_duplicate_file(photos, cli):
    flags = sorted((photos / "train/flag").iterdir())
    for path in flags[:5]:
        path.write_bytes(b"no image")
    test = sorted((photos / "test/mammal").iterdir())
    test[0].write_bytes(test[0].read_bytes()[:400])
    test[1].write_bytes(test[1].read_bytes()[:-2])
    shutil.copy(flags[5], photos / "val/flag/copy.jpg")
    shutil.copy(flags[6], photos / "train/mammal/other.jpg")
    code, out, err = cli("check", photos)
    assert code == 3
    assert all(str(path) in out for path in [*flags[:5], test[0], test[1]])
    assert "unreadable: not an image that zoo reads (5 images): " in out
    assert "unreadable: truncated (1 image): " in out
    assert "1 JPEG lacks its last bytes" in out
    assert "1 image of val is in train too" in out
    assert "other.jpg (mammal)" in out
    assert err.startswith("zoo: error: 6 of 50 images cannot be read")
    code, out, _ = cli("check", photos, "--json")
    report = json.loads(out)
    assert code == 3
    assert set(report["bad"]) == {str(path) for path in [*flags[:5], test[0]]}
    assert report["incomplete"] == [str(test[1])]
    assert len(report["duplicates"]["across_splits"]) == 1
    assert not list(photos.parent.glob("runs"))


def test_check_recognizes_images_with_masks(tmp_path, cli):
    root = write_scenes(tmp_path / "scenes", 5, seed=1)
    (root / "classes.txt").write_text("\n".join(SHAPES))
    code, out, _ = cli("check", root, "--json")
    report = json.loads(out)
    assert (code, report["task"]) == (0, "semantic-segmentation")
    assert report["images"] == {"train": 4, "val": 1}
    assert report["counts"]["train"]["background"] == 4
    assert set(report["counts"]["val"]) == set(SHAPES)
    broken = sorted((root / "images").iterdir())[:2]
    for path in broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    code, out, _ = cli("check", root, "--json")
    assert code == 3
    assert set(json.loads(out)["bad"]) == {str(path) for path in broken}
    # Asked as a classification, the two folders are its classes.
    code, out, _ = cli("check", root, "--json", "--task", "image-classification")
    assert json.loads(out)["classes"] == ["images", "masks"]


def test_check_of_table_and_of_missing_path(photos, cli, tmp_path):
    paths = sorted((photos / "train").rglob("*.jpg"))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    code, out, _ = cli("check", table, "--json")
    assert code == 0
    assert sum(json.loads(out)["images"].values()) == 24
    code, _, err = cli("check", tmp_path / "nowhere")
    assert (code, "does not exist" in err) == (3, True)
    code, _, err = cli("check", photos, "--task", "image-clasification")
    assert (code, "image-classification" in err) == (2, True)


def test_columns_and_classes_choose_readings(photos, cli):
    rows = [f"{path.relative_to(photos)},x,{path.parent.name}" for path in photos.glob("val/*/*")]
    table = photos / "t.csv"
    table.write_text("\n".join(["one,two,three", *rows]))
    code, _, err = cli("check", table)
    assert (code, "choose one by --columns label=NAME" in err) == (3, True)
    code, out, _ = cli("check", table, "--columns", "label=three", "--json")
    assert (code, json.loads(out)["classes"]) == (0, ["flag", "mammal", "playing_card"])
    table.unlink()
    for name in ("train", "val", "test"):
        (photos / name).rename(photos / f"part {name[1]}")
    shutil.rmtree(photos / "part e")
    code, _, err = cli("check", photos)
    assert (code, "can be read in two ways" in err, "--classes 2" in err) == (3, True, True)
    code, out, _ = cli("check", photos, "--classes", "2", "--json")
    assert (code, json.loads(out)["classes"]) == (0, ["part a", "part r"])
    images = ImageClassification().open_all(photos, classes=2)
    assert (len(images), images.classes) == (36, ("part a", "part r"))
