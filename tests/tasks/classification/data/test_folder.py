"""Class folders: splits, classes, links, errors."""

import os
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from PIL import Image

from zoo.data.all_images import open_all
from zoo.data.split import ImageData
from zoo.data.table import metadata_table
from zoo.errors import DataError, UsageError
from zoo.tasks.classification.data.sources import EMBEDDED, open_data, open_split


def make(root: Path, *paths: str) -> Path:
    """Write an image at each path; `cat/{4}.png` stands for four of them."""
    for path in paths:
        head, _, tail = path.partition("{")
        count, _, rest = tail.partition("}")
        for name in [f"{head}{i}{rest}" for i in range(int(count))] if count else [path]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 2)).save(root / name, "PNG")
    return root


def refusal(source: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(source)
    assert caught.value.hint
    return caught.value


def val_paths(data: ImageData) -> set[str]:
    return set(data.splits["val"].paths)


def test_class_folders_are_split_per_class(tmp_path: Path) -> None:
    data = open_data(make(tmp_path / "pets", "dog/{10}.png", "cat/{5}.png", "cat/deep/er/x.png"))
    train, val = data.splits["train"], data.splits["val"]
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert (train.counts(2), val.counts(2)) == ((5, 8), (1, 2))
    paths = {*train.paths, *val.paths}
    assert len(paths) == len(train) + len(val) == 16
    assert "cat/deep/er/x.png" in paths
    for split in (train, val):
        assert list(split.paths) == sorted(split.paths)
        assert all(split.path(i).is_file() for i in range(len(split)))
        named = [data.classes[label] for label in split.targets]
        assert named == [path.split("/")[0] for path in split.paths]
    assert data.reason == "20 % of each class held out by seed 0"
    notice = "1 image has the class of the top folder, not of the sub-folder: cat/deep/er/"
    assert data.notices == (notice,)


def test_folders_of_images_and_masks_are_reported(tmp_path: Path) -> None:
    scenes = make(tmp_path / "scenes", "images/{4}.png", "masks/{4}.png")
    (notice,) = open_data(scenes).notices
    assert "taken for two classes" in notice
    assert "semantic-segmentation" in notice
    (scenes / "masks").rename(scenes / "faces")
    assert open_data(scenes).notices == ()


def test_split_depends_on_seed_and_relative_paths(tmp_path: Path) -> None:
    first = make(tmp_path / "first", "a/{40}.png", "b/{40}.png")
    second = shutil.copytree(first, tmp_path / "elsewhere" / "second")
    assert val_paths(open_data(first)) == val_paths(open_data(second))
    assert open_data(first).fingerprint == open_data(second).fingerprint
    assert val_paths(open_data(first, seed=1)) != val_paths(open_data(first))
    assert val_paths(open_data(first, val_fraction=0.5)) > val_paths(open_data(first))


def test_added_image_moves_at_most_one_other(tmp_path: Path) -> None:
    root = make(tmp_path, "a/{40}.png", "b/{40}.png")
    before = val_paths(open_data(root))
    make(root, "a/new.png")
    assert len(before ^ val_paths(open_data(root))) <= 2


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(2, 0.2, 1), (2, 0.99, 1), (3, 0.01, 1)]
)
def test_split_has_each_class_in_train_and_val(
    tmp_path: Path, count: int, fraction: float, expected: int
) -> None:
    root = make(tmp_path, f"a/{{{count}}}.png", f"b/{{{count}}}.png")
    data = open_data(root, val_fraction=fraction)
    assert data.splits["val"].counts(2) == (expected, expected)
    assert data.splits["train"].counts(2) == (count - expected,) * 2


def test_class_with_single_image_trains_with_notice(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, "a/{4}.png", "lone/x.png"))
    assert (data.splits["train"].counts(2), data.splits["val"].counts(2)) == ((3, 1), (1, 0))
    assert "1 class has a single image" in data.notices[0]
    assert "lone" in data.notices[0]


def test_fingerprint_changes_with_size_name_and_split(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png")
    fingerprints = {open_data(root).fingerprint}
    with (root / "train/a/1.png").open("ab") as file:
        file.write(b"\0")
    fingerprints.add(open_data(root).fingerprint)
    (root / "train/a/1.png").rename(root / "train/a/3.png")
    fingerprints.add(open_data(root).fingerprint)
    (root / "train/b/1.png").rename(root / "val/b/1.png")
    make(root, "train/b/2.png")
    fingerprints.add(open_data(root).fingerprint)
    assert len(fingerprints) == 4
    assert all(len(digest) == 64 for digest in fingerprints)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_used_unchanged(tmp_path: Path, val: str) -> None:
    root = make(tmp_path, "train/a/{3}.png", "train/b/{2}.png", f"{val}/b/x.png", f"{val}/a/x.png")
    data = open_data(root)
    assert set(data.splits) == {"train", "val"}
    assert data.splits["val"].root == root / val
    assert data.splits["val"].paths == ("a/x.png", "b/x.png")
    assert set(data.reason.removesuffix(" as found").split(" and ")) == {"train/", f"{val}/"}
    assert data.notices == ()


def test_missing_val_is_held_out_of_train(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, "train/a/{5}.png", "train/b/{5}.png", "test/b/x.png"))
    assert list(data.splits) == ["train", "val", "test"]
    assert [len(split) for split in data.splits.values()] == [8, 2, 1]
    assert data.splits["test"].targets == (1,)
    assert data.splits["val"].path(0).is_file()
    assert data.reason == "20 % of each class of train/ held out by seed 0"


def test_class_named_train_is_accepted(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, "train/{5}.png", "car/{5}.png", "test/{5}.png"))
    assert data.classes == ("car", "test", "train")


def test_classes_missing_from_val_yield_notice(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/c/x.txt")
    (root / "val/c/x.txt").rename(root / "val/c/notes.md")
    (notice,) = [line for line in open_data(root).notices if "1 of 2 classes" in line]
    assert notice.endswith(": b")


def test_image_extensions_ignore_case(tmp_path: Path) -> None:
    data = open_data(make(tmp_path, "a/1.JPG", "a/2.JPeG", "b/3.Tiff", "b/4.webp"))
    assert sum(len(split) for split in data.splits.values()) == 4


def test_other_and_hidden_files_are_counted_and_skipped(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        *("a/{3}.png", "b/{3}.png", "stray.png"),
        *(".ipynb_checkpoints/x.png", "a/.hidden/x.png", "__MACOSX/a/x.png", "a/._1.png"),
        *("b/@eaDir/1.png/thumb.png",),
    )
    for name in (
        "a/notes.txt",
        "a/more.txt",
        "b/clip.heic5",
        "b/x.heic5",
        "b/LICENSE",
        "README.md",
    ):
        (root / name).touch()
    data = open_data(root)
    assert data.classes == ("a", "b")
    assert sum(len(split) for split in data.splits.values()) == 6
    assert [line.partition(": ")[2] for line in data.notices] == [
        "5 files that are not images: .txt (2), .heic5 (2), no extension (1)",
        "5 hidden files or folders",
        "1 image beside the class folders",
    ]


def test_folders_beside_splits_are_skipped_with_notice(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/{3}.png", "train/b/{3}.png", "unlabeled/x.png", "y.png")
    first, second = open_data(root).notices
    assert "unlabeled" in first
    assert "1 image beside the splits" in second


def test_link_loops_do_not_duplicate_images(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "a/{2}.png", "b/sub/{2}.png")
    (root / "a/loop").symlink_to(root)
    (root / "a/up").symlink_to(tmp_path)
    (root / "a/self").symlink_to(root / "a")
    (root / "a/to_b").symlink_to(root / "b")
    (root / "b/sub/again").symlink_to(root / "b")
    (root / "all").symlink_to(root)
    data = open_data(root)
    assert data.classes == ("a", "b")
    assert sorted([*data.splits["train"].paths, *data.splits["val"].paths]) == [
        *("a/0.png", "a/1.png", "b/sub/0.png", "b/sub/1.png")
    ]
    assert any("6 links to folders that are indexed already" in line for line in data.notices)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "cats/{2}.png", "more/{3}.png", "one.png")
    root = make(tmp_path / "data", "dog/{2}.png", "bird/{2}.png")
    (root / "cat").symlink_to(outside / "cats")
    (root / "dog/more").symlink_to(outside / "more")
    (root / "bird/more").symlink_to(outside / "more")
    (root / "dog/one.png").symlink_to(outside / "one.png")
    (root / "dog/nowhere.png").symlink_to(outside / "absent.png")
    (root / "dog/nowhere").symlink_to(outside / "absent")
    data = open_data(root)
    assert data.classes == ("bird", "cat", "dog")
    counts = [data.splits[name].counts(3) for name in ("train", "val")]
    assert [sum(pair) for pair in zip(*counts, strict=True)] == [5, 2, 3]
    assert any("1 link to folders" in line and "dog/more" in line for line in data.notices)
    assert any("1 broken link" in line for line in data.notices)


def test_pipe_with_image_extension_is_skipped(tmp_path: Path) -> None:
    root = make(tmp_path, "a/{2}.png", "b/{2}.png")
    os.mkfifo(root / "a/pipe.png")
    data = open_data(root)
    assert sum(len(split) for split in data.splits.values()) == 4
    assert "skipped: 1 broken link or pipe: a/pipe.png" in data.notices


def test_file_names_of_any_bytes_are_indexed(tmp_path: Path) -> None:
    root = make(tmp_path, "b/{2}.png", "\u00e9 t\u00e9/line\nbreak.png", "\u00e9 t\u00e9/x.png")
    raw = os.fsencode(root / "b") + b"/\xff.png"
    with open(raw, "wb") as file:  # noqa: PTH123 - the name is not text
        file.write(b"x")
    data = open_data(root)
    assert data.classes == ("b", "\u00e9 t\u00e9")
    assert sum(len(split) for split in data.splits.values()) == 5


def test_open_data_rejects_missing_path_and_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent").message
    archive = tmp_path / "images.zip"
    archive.touch()
    assert "is a file" in refusal(archive).message
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"cannot read .*loop"):
        open_data(tmp_path / "loop")


def test_folder_without_class_folders_is_rejected(tmp_path: Path) -> None:
    assert "contains no images" in refusal(tmp_path).message
    make(tmp_path, "{3}.png")
    assert "3 images and no class folders" in refusal(tmp_path).message
    flat = make(tmp_path / "flat", "train/{3}.png", "val/{3}.png")
    assert str(flat / "train") in refusal(flat).message
    text = make(tmp_path / "text", "a/x.png", "b/x.png")
    for image in text.glob("*/*.png"):
        image.rename(image.with_suffix(".heic5"))
    assert ".heic5 (2)" in str(refusal(text).hint)


def test_single_class_is_rejected(tmp_path: Path) -> None:
    assert "only one class, a" in refusal(make(tmp_path / "one", "a/{3}.png")).message
    deep = make(tmp_path / "deep", "a/b/{3}.png")
    assert "only one class, a" in refusal(deep).message


def test_empty_class_folder_is_rejected(tmp_path: Path) -> None:
    root = make(tmp_path, "a/{3}.png", "b/{3}.png")
    (root / "hollow").mkdir()
    assert refusal(root).message.endswith("without images: hollow")


@pytest.mark.parametrize("inside", ["runs/resnet18-1", "my-run"])
def test_folder_of_trainings_is_no_class(tmp_path: Path, inside: str) -> None:
    """`--data .` writes into `runs/` beside the classes."""
    root = make(tmp_path / "pets", "dog/{5}.png", "cat/{5}.png")
    before = open_data(root)
    (root / inside / "checkpoints").mkdir(parents=True)
    (root / inside / "checkpoints/plan.json").write_text("{}")
    (root / inside / "notes.txt").write_text("mine")
    data = open_data(root)
    name = inside.partition("/")[0]
    assert data.notices == (f"skipped: 1 folder of trainings: {name}",)
    assert (data.classes, data.fingerprint) == (before.classes, before.fingerprint)
    wrapped = open_data(shutil.copytree(root, tmp_path / "outer/pets").parent)
    assert wrapped.classes == ("cat", "dog")
    shutil.move(tmp_path / "outer/pets" / name, tmp_path / "outer" / name)
    assert open_data(tmp_path / "outer").classes == ("cat", "dog")
    # A folder with images is a class, whatever else it has.
    make(root, "runs/0.png", "runs/1.png", "my-run/sub/0.png")
    shutil.rmtree(root / "my-run/checkpoints", ignore_errors=True)
    assert "runs" in open_data(root).classes


def test_trainings_beside_images_change_no_reading(tmp_path: Path) -> None:
    root = make(tmp_path / "flat", "{3}.png")
    (root / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n2.png,b\n")
    assert metadata_table(root) == root / "metadata.csv"
    (root / "runs/resnet18-1/checkpoints").mkdir(parents=True)
    (root / "runs/resnet18-1/checkpoints/plan.json").write_text("{}")
    assert metadata_table(root) == root / "metadata.csv"
    assert open_all(root, open_data).splits[0].paths == ("0.png", "1.png", "2.png")


def test_splits_with_different_classes_are_rejected(tmp_path: Path) -> None:
    root = make(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cats/2.png")
    error = refusal(root)
    assert error.message.endswith("does not: cats")
    assert "did you mean cat" in str(error.hint)
    make(root, "validation/cat/3.png")
    assert "both val/ and validation/" in refusal(root).message


def test_val_without_train_or_images_is_rejected(tmp_path: Path) -> None:
    assert "no train/" in refusal(make(tmp_path / "x", "val/a/1.png", "val/b/1.png")).message
    root = make(tmp_path / "y", "train/a/1.png", "train/b/1.png")
    (root / "val").mkdir()
    assert refusal(root).message == f"{root / 'val'} contains no images"


def test_classes_of_one_image_each_are_rejected(tmp_path: Path) -> None:
    assert "single image" in refusal(make(tmp_path, "a/1.png", "b/1.png")).message


@pytest.mark.parametrize("fraction", [1.0, -1.0, float("nan")])
def test_val_fraction_outside_0_to_1_is_rejected(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        open_data(make(tmp_path, "a/{2}.png", "b/{2}.png"), val_fraction=fraction)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_unreadable_folder_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, "a/{2}.png", "b/{2}.png")
    (root / "b").chmod(0)
    with pytest.raises(DataError, match=r"cannot read the folder .*b: Permission denied"):
        open_data(root)
    (root / "b").chmod(0o700)


def test_open_data_none_opens_embedded_set() -> None:
    data = open_data(None)
    assert (data.name, data.notices) == ("clipart10 (embedded)", ())
    assert len(data.classes) == 10
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 387, "val": 96}
    assert (EMBEDDED / "README.md").is_file()
    assert open_data(EMBEDDED).fingerprint == data.fingerprint
    with pytest.raises(FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_open_split_prefers_test_then_val(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.png", "train/b/1.png", "valid/a/2.png")
    classes = ("a", "b")
    assert open_split(root, classes).name == "val"
    assert open_split(root, classes, "validation").paths == ("a/2.png",)
    make(root, "test/b/3.png")
    assert open_split(root, classes).name == "test"
    assert len(open_split(root, classes, "train")) == 2
    assert len(open_split(None, open_data(None).classes)) == 96


def test_open_split_labels_follow_model_classes(tmp_path: Path) -> None:
    root = make(tmp_path, "cat/{2}.png", "dog/{3}.png")
    (root / "notes").mkdir()
    split = open_split(root, ("dog", "fish", "cat"))
    assert (split.name, split.targets, split.counts(3)) == ("all", (2, 2, 0, 0, 0), (3, 0, 2))
    assert open_split(root, ("cat", "dog"), "all").targets == (0, 0, 1, 1, 1)


def test_open_split_rejects_unknown_class_or_split(tmp_path: Path) -> None:
    root = make(tmp_path / "plain", "cat/{2}.png", "dgo/{3}.png")
    with pytest.raises(DataError, match=r"unknown to the model: dgo; did you mean dog\?"):
        open_split(root, ("cat", "dog"))
    with pytest.raises(DataError, match="no split 'test'"):
        open_split(root, ("cat", "dgo"), "test")
    only = make(tmp_path / "only", "train/cat/1.png", "train/dog/1.png")
    with pytest.raises(DataError, match="no test/ or val/; name the split train"):
        open_split(only, ("cat", "dog"))
    with pytest.raises(DataError, match="no split 'test'; it has train/"):
        open_split(only, ("cat", "dog"), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no images"):
        open_split(tmp_path / "empty", ("cat",))


OPEN = """
import sys
from pathlib import Path
from zoo.tasks.classification.data.hold_out import HoldOut
from zoo.errors import DataError
from zoo.tasks.classification.data.folder import open_folder
try:
    open_folder(Path(sys.argv[1]), HoldOut(0, 0.2))
except DataError as error:
    print(ascii(f"{error.message}; {error.hint}"))
    sys.exit(int(error.exit_code))
"""


def test_ascii_locale_is_told_what_to_set(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", "caf\u00e9/{4}.png", "dog/{4}.png")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", OPEN, str(root)]

    def code_and_text(**environment: str) -> tuple[int, str]:
        variables = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        return done.returncode, done.stdout + done.stderr

    code, text = code_and_text(**ascii_only)
    assert code == 3
    assert "is not valid in the encoding of the system, ascii" in text
    assert "; set LC_ALL=C.UTF-8, or PYTHONUTF8=1" in text
    assert code_and_text(**ascii_only | {"PYTHONUTF8": "1"}) == (0, "")
