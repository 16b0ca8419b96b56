"""Validation images: the share held out, none at all, and groups that stay together."""

from pathlib import Path

import pytest

from tests.tasks.classification.data.test_folder import make
from zoo.data.split import ImageData
from zoo.errors import DataError, UsageError
from zoo.tasks.classification.data.sources import open_data

# Ten patients with four images of each class.
NAMES = [f"{label}/p{patient}_{n}.png" for label in "ab" for patient in range(10) for n in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make(tmp_path / "photos", *NAMES)


def patients(data: ImageData) -> dict[str, set[str]]:
    return {
        name: {Path(split.where(index)).stem.split("_")[0] for index in range(len(split))}
        for name, split in data.splits.items()
    }


def write(photos: Path, header: str, split: str = "") -> Path:
    rows = [f"{name},{name[0]},camera {name.split('_')[0][-1]}{split}" for name in NAMES]
    path = photos / "t.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_fraction_zero_holds_nothing_out(photos: Path) -> None:
    table = write(photos, "path,label,camera")
    for source in (photos, table):
        data = open_data(source, val_fraction=0.0)
        assert (list(data.splits), len(data.splits["train"]), data.own_val) == (
            ["train"],
            80,
            False,
        )
        assert data.reason == "nothing is held out: all images train, without validation"
    make(photos, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    for label in "ab":
        (photos / label).rename(photos / "train" / f"{label}{label}")
    data = open_data(photos, val_fraction=0.0)
    assert list(data.splits) == ["train", "test"]
    assert data.reason.startswith("nothing of train/ is held out")
    make(photos, "val/a/9.png")
    assert (open_data(photos, val_fraction=0.0).own_val, len(open_data(photos).splits)) == (True, 3)


def test_groups_of_paths_are_held_out_whole(photos: Path) -> None:
    data = open_data(photos, group_by=r"(p\d+)_")
    held = patients(data)
    assert not held["train"] & held["val"]
    assert len(held["val"]) == 2
    assert data.splits["val"].counts(2) == (8, 8)
    assert data.reason == "20 % of each class held out by seed 0 in 2 of 10 groups"
    train = data.splits["train"]
    assert [Path(p).stem.split("_")[0] for p in train.paths] == list(train.groups)  # type: ignore[attr-defined]
    assert patients(open_data(photos))["val"] & patients(open_data(photos))["train"]
    assert open_data(photos).splits["train"].groups == ()
    assert open_data(photos, group_by=r"(p\d+)_", seed=1).splits["val"] != data.splits["val"]


def test_groups_of_column_are_held_out_whole(photos: Path) -> None:
    path = write(photos, "path,label,camera")
    data = open_data(path, group="camera")
    held = patients(data)
    assert not held["train"] & held["val"]
    assert set(data.splits["val"].groups) == {f"camera {name[-1]}" for name in held["val"]}
    assert data.notices == ()
    assert patients(open_data(path, group_by=r"/(p\d)"))["val"].isdisjoint(
        patients(open_data(path, group_by=r"/(p\d)"))["train"]
    )
    with pytest.raises(
        DataError, match=r"t.csv has no column 'lens', of --group lens; it has path"
    ):
        open_data(path, group="lens")
    path.write_text(path.read_text().replace("a/p1_1.png,a,camera 1", "a/p1_1.png,a,"))
    with pytest.raises(DataError, match=r"1 line has no group: line 7"):
        open_data(path, group="camera")


def test_given_splits_that_divide_a_group_are_refused(photos: Path) -> None:
    path = write(photos, "path,label,camera,split", ",train")
    text = path.read_text()
    path.write_text(text.replace("camera 3,train", "camera 3,val"))
    assert patients(open_data(path, group="camera")) == {
        "train": {f"p{n}" for n in range(10) if n != 3},
        "val": {"p3"},
    }
    path.write_text(text.replace("b/p3_0.png,b,camera 3,train", "b/p3_0.png,b,camera 3,val"))
    with pytest.raises(DataError, match=r"t.csv: 1 group is in both train and val: camera 3"):
        open_data(path, group="camera")


def test_classes_of_one_group_train_with_notice(photos: Path) -> None:
    data = open_data(make(photos, "c/p77_1.png", "c/p77_2.png"), group_by=r"(p\d+)_")
    assert data.splits["val"].counts(3)[2] == 0
    assert data.notices[-1].endswith("and are not validated: c")
    with pytest.raises(DataError, match=r"no group of .*photos can be held out; .*--val 0"):
        open_data(photos, group_by="(p)")


def test_groups_of_other_sources_are_refused(photos: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--group camera, but .*photos is not a table; .*--group-by"
    ):
        open_data(photos, group="camera")
    with pytest.raises(UsageError, match="is not a folder or a table of files"):
        open_data({"train": [1]}, group_by="a")
    with pytest.raises(DataError, match=r"--group-by x finds no group in 80 images of .*photos"):
        open_data(photos, group_by="x")
