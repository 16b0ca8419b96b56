"""Layouts of folders: splits, classes, wrappers, and folders with two readings."""

import unicodedata
from pathlib import Path

import pytest

from tests.tasks.classification.data.test_folder import make, refusal
from zoo.data.split import ImageData
from zoo.errors import DataError
from zoo.tasks.classification.data.sources import open_data, open_split

PAIR = ("bird", "flag")


def tree(root: Path, *folders: str, classes: tuple[str, ...] = PAIR, count: int = 3) -> Path:
    """Write class folders of `count` images into each folder."""
    return make(
        root, *(f"{folder}/{name}/{{{count}}}.png" for folder in folders for name in classes)
    )


def inferred(data: ImageData) -> list[str]:
    """Return the notices, without that on images of the same name, which these all have."""
    return [notice for notice in data.notices if "share" not in notice]


def sizes(data: ImageData) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("TRAIN", "TEST"),
        ("train_images", "test_images"),
        ("train2017", "test2017"),
        ("seg_train", "seg_test"),
        ("birds-Train", "birds-Test"),
        ("01_train", "02_test"),
        ("Training/Training", "Testing/Testing"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/data/images", "test"),
        ("train", "test/deep"),
        ("archive/train", "archive/test"),
        ("archive/birds/Training", "archive/birds/Testing"),
    ],
)
def test_variants_of_split_names_are_splits(tmp_path: Path, train: str, test: str) -> None:
    tree(tmp_path, train, count=10)
    tree(tmp_path, test)
    data = open_data(tmp_path)
    assert (data.classes, sizes(data)) == (PAIR, {"train": 16, "val": 4, "test": 6})
    assert data.splits["test"].root == tmp_path / test  # type: ignore[attr-defined]
    assert "held out by seed 0" in data.reason
    notices = []
    if train.startswith("archive"):
        wrapper, _, train = train.rpartition("/")
        test = test.rpartition("/")[2]
        notices.append(f"the folder is {wrapper}/, alone in {tmp_path}")
    pairs = ((train, "train"), (test, "test"))
    names = [f"{folder}/ is {split}" for folder, split in pairs if folder.lower() != split]
    assert inferred(data) == notices + ([f"splits by name: {', '.join(names)}"] if names else [])
    assert (open_split(tmp_path, PAIR).name, len(open_split(tmp_path, PAIR))) == ("test", 6)


def test_train_and_valid_are_splits(tmp_path: Path) -> None:
    data = open_data(tree(tmp_path, "Train", "Valid"))
    assert (data.classes, sizes(data)) == (PAIR, {"train": 6, "val": 6})
    assert data.reason == "Train/ and Valid/ as found"


def test_lone_wrapper_of_class_folders_is_entered(tmp_path: Path) -> None:
    data = open_data(tree(tmp_path / "photos", "archive/images", count=5))
    assert (data.name, data.classes, sizes(data)) == ("photos", PAIR, {"train": 8, "val": 2})
    assert data.notices == (f"the folder is archive/images/, alone in {tmp_path / 'photos'}",)
    make(tmp_path / "photos", "x.png")
    assert "only one class, archive" in refusal(tmp_path / "photos").message


def test_lone_class_of_model_is_no_wrapper(tmp_path: Path) -> None:
    tree(tmp_path, "cat", classes=("persian", "siamese"))
    assert open_split(tmp_path, ("cat", "dog")).targets == (0,) * 6
    assert open_split(tmp_path, ("persian", "siamese")).targets == (0,) * 3 + (1,) * 3


def test_splits_inside_class_folders_are_splits(tmp_path: Path) -> None:
    make(
        tmp_path,
        "cat/Train/{4}.png",
        "cat/Valid/{2}.png",
        "dog/train/{4}.png",
        "dog/deep/val/x.png",
    )
    (tmp_path / "dog/deep/val").rename(tmp_path / "dog/val")
    (tmp_path / "dog/deep").rmdir()
    data = open_data(tmp_path)
    assert (data.classes, sizes(data)) == (("cat", "dog"), {"train": 8, "val": 3})
    assert set(data.splits["val"].paths) == {"cat/Valid/0.png", "cat/Valid/1.png", "dog/val/x.png"}  # type: ignore[attr-defined]
    assert data.reason.endswith("as found in each class folder")
    assert data.notices == ()
    split = open_split(tmp_path, ("dog", "cat"))
    assert (split.name, split.targets) == ("val", (1, 1, 0))


@pytest.mark.parametrize("folders", [("fold1", "fold2"), ("2019", "2020", "2021"), ("a/x", "b/y")])
def test_equal_subfolders_are_refused_with_both_readings(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    names = ("bird", "flag", "sign", "tree")
    root = tree(tmp_path, *folders, classes=names)
    error = refusal(root)
    tops = ", ".join(f"{folder.split('/')[0]}/" for folder in folders)
    assert f"{tops} are {len(folders)} classes, or parts" in error.message
    assert "the 4 classes bird, flag, sign, tree" in error.message
    assert f"give --classes {len(folders)}" in str(error.hint)
    assert "train/ and val/" in str(error.hint)
    data = open_data(root, classes=len(folders))
    assert data.classes == tuple(folder.split("/")[0] for folder in folders)
    assert "have the class of the top folder" in data.notices[0]
    assert len(open_split(root, data.classes)) == len(folders) * 12
    with pytest.raises(DataError, match="two ways"):
        open_split(root, names)


def test_nearly_equal_subfolders_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "one", classes=("a", "b", "c", "d"))
    tree(tmp_path, "two", classes=("a", "b", "c"))
    assert "the 4 classes a, b, c, d" in refusal(tmp_path).message
    deep = tree(tmp_path / "deep", "train/2019", "train/2020", "val/2021")
    assert f"{deep / 'train'} can be read in two ways" in refusal(deep).message
    pairs = make(
        tmp_path / "pairs", *(f"{s}_{c}/{{2}}.png" for s in ("train", "test") for c in PAIR)
    )
    assert "the 2 classes bird, flag" in refusal(pairs).message


def test_unequal_subfolders_are_flattened_with_notice(tmp_path: Path) -> None:
    make(
        tmp_path,
        "cats/persian/{3}.png",
        "cats/siamese/{3}.png",
        "dogs/poodle/{3}.png",
        "dogs/x.png",
    )
    data = open_data(tmp_path)
    assert (data.classes, sizes(data)) == (("cats", "dogs"), {"train": 8, "val": 2})
    inner = "cats/persian/, cats/siamese/, dogs/poodle/"
    assert data.notices == (
        f"9 images have the class of the top folder, not of the sub-folder: {inner}",
    )


@pytest.mark.parametrize(
    "folders",
    [("cat/images", "dog/images"), ("bullet_train", "test_tube"), ("training", "resting"),
     ("valid", "invalid"), ("trains/steam", "car", "plane/test")],
)  # fmt: skip
def test_class_folders_are_not_taken_for_splits(tmp_path: Path, folders: tuple[str, ...]) -> None:
    data = open_data(make(tmp_path, *(f"{folder}/{{3}}.png" for folder in folders)))
    assert set(data.classes) == {folder.split("/")[0] for folder in folders}


def test_unrecognised_split_beside_train_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, "train", "holdout")
    error = refusal(root)
    assert error.message == f"{root / 'holdout'} has the class folders of train/"
    assert "rename it val/ or test/" in str(error.hint)
    tree(root, "val")
    assert inferred(open_data(root)) == ["skipped: folders beside train/, val/: holdout"]


def test_split_without_class_folders_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "train")
    error = refusal(make(tmp_path, "test/{3}.png"))
    assert (
        error.message == f"{tmp_path / 'test'} contains 3 images and no class folders with images"
    )
    assert "class folders" in str(error.hint)


def test_decomposed_names_equal_composed_ones(tmp_path: Path) -> None:
    forms = {form: unicodedata.normalize(form, "Pájaro") for form in ("NFC", "NFD")}
    for form, name in forms.items():
        tree(tmp_path / form, "train", classes=(name, "Pez"))
        make(tmp_path / form, f"{name}/{name}{{9}}.png", "Pez/{9}.png")
        tree(tmp_path / form, "val", classes=(forms["NFC"], "Pez"))
    mixed = [open_data(tmp_path / form / "train") for form in forms]
    assert mixed[0].classes == mixed[1].classes == ("Pez", forms["NFC"])
    assert mixed[0].fingerprint == mixed[1].fingerprint
    for root in (tmp_path / "NFC", tmp_path / "NFD"):
        for name in forms.values():
            split = open_split(root / "val", (name, "Pez"))
            assert split.counts(2) == (3, 3)
    for form, name in forms.items():
        tree(tmp_path / f"{form} only", "train", classes=(name, "Pez"))
        tree(tmp_path / f"{form} only", "val", classes=(forms["NFC"], "Pez"))
        assert sizes(open_data(tmp_path / f"{form} only")) == {"train": 6, "val": 6}


def test_decomposed_names_draw_the_same_images(tmp_path: Path) -> None:
    drawn = []
    for form in ("NFC", "NFD"):
        bird, image = (unicodedata.normalize(form, name) for name in ("Pájaro", "año"))
        root = make(tmp_path / form, f"{bird}/{image}{{20}}.png", "Pez/{20}.png")
        data = open_data(root)
        drawn.append([unicodedata.normalize("NFC", path) for path in data.splits["val"].paths])  # type: ignore[attr-defined]
        assert len(data.fingerprint) == 64
    assert drawn[0] == drawn[1]
    assert open_data(tmp_path / "NFC").fingerprint == open_data(tmp_path / "NFD").fingerprint


def test_folders_differing_in_accent_encoding_are_one_class(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Pájaro") for form in ("NFC", "NFD")]
    data = open_data(make(tmp_path, *(f"{name}/{{5}}.png" for name in (*names, "Pez"))))
    assert data.classes == ("Pez", names[0])
    assert sizes(data) == {"train": 12, "val": 3}


def test_numbered_class_folders_are_sorted_by_value(tmp_path: Path) -> None:
    names = [str(number) for number in range(1, 12)]
    data = open_data(make(tmp_path, *(f"{name}/{{2}}.png" for name in names)))
    assert data.classes == tuple(names)
    assert data.splits["train"].targets == tuple(range(11))
