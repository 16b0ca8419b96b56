"""CSV and TSV tables of images: columns, splits, errors by line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from zoo.data.split import ImageData
from zoo.errors import DataError
from zoo.tasks.classification.data.sources import EMBEDDED, open_data, open_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with twenty images, `0.png` to `19.png`."""
    for number in range(20):
        Image.new("L", (2, 2), number).save(tmp_path / f"{number}.png")
    return tmp_path


def table(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(*groups: tuple[str, range], split: str = "") -> str:
    tail = f",{split}" if split else ""
    return "".join(f"{i}.png,{label}{tail}\n" for label, numbers in groups for i in numbers)


PLAIN = rows(("dog", range(10)), ("cat", range(10, 20)))
SWAPPED = "".join(",".join(reversed(line.split(","))) + "\n" for line in PLAIN.split())
SPLIT = (
    rows(("dog", range(4)), ("cat", range(4, 8)), split="train")
    + rows(("dog", range(8, 10)), ("cat", range(10, 12)), split="valid")
    + rows(("dog", range(12, 15)), split="TEST")
)


def classes_by_path(data: ImageData) -> dict[str, str]:
    """Return the class of each image by path, over all splits."""
    return {
        path: data.classes[label]
        for split in data.splits.values()
        for path, label in zip(split.paths, split.targets, strict=True)
    }


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3
    return caught.value


def test_table_without_split_is_split_per_class(root: Path) -> None:
    data = open_data(table(root, PLAIN))
    assert (data.name, data.classes, data.notices) == ("labels.csv", ("cat", "dog"), ())
    assert [split.counts(2) for split in data.splits.values()] == [(8, 8), (2, 2)]
    assert data.reason == "20 % of each class held out by seed 0"
    assert classes_by_path(data) == {f"{i}.png": "dog" if i < 10 else "cat" for i in range(20)}
    assert data.splits["val"].image(0).mode == "RGB"
    other = open_data(root / "labels.csv", seed=1)
    assert other.splits["val"].paths != data.splits["val"].paths


def test_split_column_is_used_unchanged(root: Path) -> None:
    data = open_data(table(root, SPLIT))
    counts = {name: split.counts(2) for name, split in data.splits.items()}
    assert counts == {"train": (4, 4), "val": (2, 2), "test": (0, 3)}
    assert data.reason == "train, val and test as listed"
    assert data.notices == ("test has no images of 1 of 2 classes: cat",)


def test_missing_val_is_held_out_of_train(root: Path) -> None:
    text = "".join(line for line in SPLIT.splitlines(True) if "valid" not in line)
    data = open_data(table(root, text))
    assert {name: len(split) for name, split in data.splits.items()} == {
        **{"train": 6, "val": 2, "test": 3}
    }
    assert data.reason == "20 % of each class of train held out by seed 0"


def test_table_of_folder_equals_folder(tmp_path: Path) -> None:
    folder = open_data(EMBEDDED)
    lines = [
        f"{split.root / path},{folder.classes[label]},{name}\n"
        for name, split in folder.splits.items()
        for path, label in zip(split.paths, split.targets, strict=True)
    ]
    data = open_data(table(tmp_path, "".join(lines)))
    assert data.classes == folder.classes
    for name, split in folder.splits.items():
        assert data.splits[name].targets == split.targets
        assert [data.splits[name].path(i) for i in range(3)] == [split.path(i) for i in range(3)]
        assert data.splits[name].image(5).tobytes() == split.image(5).tobytes()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path,label\n" + PLAIN),
        ("t.CSV", "\n\nLabel, Filename\n" + SWAPPED),
        ("t.csv", b"\xef\xbb\xbf" + b"Image,Class\n" + PLAIN.encode()),
        ("t.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
        ("t.csv", PLAIN.replace("\n", "\r\n")),
        ("t.csv", PLAIN.replace("\n", "\r")),
        ("t.csv", "\n" + PLAIN.replace("\n", "\n\n,,\n  \n") + "\n"),
        ("t.csv", PLAIN.replace("dog", '"dog"').replace("\n5.png", '\n"5.png"').replace(",", ", ")),
        ("t.tsv", PLAIN.replace(",", "\t")),
        ("t.TSV", "label\tFILE\n" + SWAPPED.replace(",", "\t")),
        ("t.csv", "./" + PLAIN.replace("\n1", "\n.//./1")),
    ],
)  # fmt: skip
def test_equivalent_tables_have_equal_data(root: Path, name: str, text: str | bytes) -> None:
    expected = open_data(table(root, PLAIN))
    data = open_data(table(root, text, name))
    assert (data.fingerprint, data.notices) == (expected.fingerprint, ())
    assert classes_by_path(data) == classes_by_path(expected)


def test_line_order_and_location_are_ignored(root: Path, tmp_path: Path) -> None:
    first = open_data(table(root, PLAIN))
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    absolute = "".join(f"{moved}/{line}" for line in reversed(PLAIN.splitlines(True)))
    second = open_data(table(moved, absolute))
    assert first.fingerprint == second.fingerprint
    assert [split.paths for split in first.splits.values()] == [
        split.paths for split in second.splits.values()
    ]


def test_fingerprint_changes_with_labels_and_sizes(root: Path) -> None:
    fingerprints = {open_data(table(root, text)).fingerprint for text in (PLAIN, SPLIT)}
    fingerprints.add(open_data(table(root, PLAIN.replace("0.png,dog", "0.png,cat", 1))).fingerprint)
    with (root / "3.png").open("ab") as file:
        file.write(b"\0")
    fingerprints.add(open_data(table(root, PLAIN)).fingerprint)
    assert len(fingerprints) == 4


def test_integer_labels_are_sorted_by_value(root: Path) -> None:
    text = "".join(f"{i}.png,{i % 12}\n" for i in range(20))
    assert open_data(table(root, text)).classes == tuple(str(i) for i in range(12))
    mixed = text.replace(",3\n", ",x\n")
    assert open_data(table(root, mixed)).classes[:3] == ("0", "1", "10")


def test_likely_mistakes_yield_notices(root: Path) -> None:
    text = "id,path,label,,width\n" + "".join(f"9,{line},,2\n" for line in PLAIN.splitlines())
    (notice,) = open_data(table(root, text)).notices
    assert notice == "skipped: 3 further columns: id, (no name), width"
    (notice,) = open_data(table(root, PLAIN + "3.png,dog\n./4.png,dog\n")).notices
    again = "3.png (line 21), 4.png (line 22)"
    assert notice == f"skipped: 2 lines with an image listed before: {again}"
    alike = PLAIN.replace("1.png,dog", "1.png,Dog").replace("2.png,dog", "2.png,Dog")
    assert "classes differ in case alone: Dog, dog" in open_data(table(root, alike)).notices
    both = open_data(table(root, SPLIT + "0.png,dog,val\n0.png,dog,val\n")).notices
    assert any("1 line with an image listed before: 0.png (line 17)" in line for line in both)
    single = PLAIN.replace("19.png,cat", "19.png,cow")
    assert "1 class has a single image" in open_data(table(root, single)).notices[0]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is empty", "path,label"),
        ("path,label\n", "lists no images", "path,label"),
        ("0.png\n1.png\n", "line 1 has no label", "path,label"),
        ("0.png,a,b,c,d\n", "line 1 has 5 fields", "add a header"),
        ("path,age,kind\n0.png,1,a\n", "names no column label or class", "it has path, age, kind"),
        ("name,label,split\nx,a,train\n", "names no column path or file or", "it has name"),
        ("path,label,class\n0.png,a,b\n", "2 columns for the label: label, class", "rename"),
        (PLAIN + "5.png,\n,cat\n6.png\n", "3 lines are invalid; 2 lines have no label: line 2", ""),
        (PLAIN + "5,0.png,cat\n", "1 line has more fields than the first: line 21", "quote"),
        (PLAIN + 'x.png,"cat\n1.png,dog\n', "line 21: unexpected end of data", "quote"),
        (PLAIN + "3.png,cat\n", "1 image has two labels: 3.png: dog, then cat (line 21)", ""),
        (SPLIT + "3.png,cat,test\n", "3.png: dog, then cat (line 16)", ""),
        (SPLIT + "15.png,cat,vall\n", "1 split is unknown: vall (line 16)", "did you mean val"),
        (SPLIT + "15.png,cat,7\n", "1 split is unknown: 7 (line 16)", "train, val and test"),
        (SPLIT + "15.png,cat,\n16.png,cat\n", "2 lines have no split: line 16, line 17", "remove"),
        (SPLIT + "15.png,cta,val\n", "does not: cta", "did you mean cat"),
        (rows(("a", range(3)), split="val"), "lists images of val, but none of train", "train"),
        ("".join(f"{i}.png,a\n" for i in range(9)), "only one class, a", "path,label"),
        ("0.png,a\n1.png,b\n", "every class of", "at least two"),
        (PLAIN + "a.jpg,cat\nb/c.jpg,cat\n", "2 images do not exist: a.jpg (line 21), b", "rel"),
        ("a,b\n" + PLAIN.replace(".png", ".x"), "a (line 1)", "a header names"),
        (PLAIN + "a\\b.jpg,cat\n", "a/b.jpg (line 21)", "paths are relative to"),
        (PLAIN + "0.png/x,cat\n", "1 image does not exist: 0.png/x (line 21)", "relative to"),
        (PLAIN + ".,cat\n", "1 path is a folder: . (line 21)", ""),
        (PLAIN + "a\0b,cat\n", "1 image cannot be read", ""),
        (PLAIN + "n" * 300 + ",cat\n", "File name too long", ""),
        (PLAIN + "n" * 200_000 + ",cat\n", "line 21: field larger than field limit", ""),
        (PLAIN.encode() + b"\xe9.png,cat\n", "is not UTF-8 text", "UTF-8"),
        (PLAIN.encode("utf-16"), "is not UTF-8 text", "UTF-8"),
    ],
)  # fmt: skip
def test_invalid_table_is_rejected_by_line(
    root: Path, text: str | bytes, message: str, hint: str
) -> None:
    error = refusal(table(root, text))
    assert message in error.message
    assert hint in str(error.hint)
    assert "\n" not in str(error)


def test_columns_of_one_name_are_to_be_renamed(root: Path) -> None:
    error = refusal(table(root, "path,label,label\n0.png,a,b\n"))
    assert error.message.endswith("2 columns for the label: label, label")
    assert error.hint == "rename all but one of them"  # no value of --columns chooses one


def test_many_invalid_lines_are_counted_and_truncated(root: Path) -> None:
    text = PLAIN + "".join(f"no{i}.jpg,cat\n" for i in range(1200))
    error = refusal(table(root, text))
    assert ": 1,200 images do not exist: no0.jpg (line 21), no1.jpg" in error.message
    assert error.message.endswith("no4.jpg (line 25) and 1,195 more")


def test_multiline_field_advances_line_numbers(root: Path) -> None:
    text = '"0.png","dog\nshepherd"\n' + PLAIN.replace("0.png,dog\n", "", 1) + "x.png,dog\n"
    assert "x.png (line 22)" in refusal(table(root, text)).message


def test_missing_table_or_pipe_is_rejected(root: Path) -> None:
    assert "does not exist" in refusal(root / "absent.csv").message
    os.mkfifo(root / "pipe.csv")
    assert "not a regular file" in refusal(root / "pipe.csv").message
    os.mkfifo(root / "pipe.png")
    error = refusal(table(root, PLAIN + "pipe.png,cat\n"))
    assert "1 path is not a regular file: pipe.png (line 21)" in error.message


def test_folder_with_csv_suffix_is_folder(root: Path) -> None:
    folder = root / "photos.csv"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            shutil.copyfile(root / "0.png", folder / label / f"{number}.png")
    assert open_data(folder).classes == ("a", "b")


def test_open_split_prefers_test_then_val_then_all(root: Path) -> None:
    classes = ("dog", "fish", "cat")
    path = table(root, SPLIT)
    assert (open_split(path, classes).name, open_split(path, classes).targets) == ("test", (0,) * 3)
    assert open_split(path, classes, "Validation").targets == (2, 2, 0, 0)
    path = table(root, SPLIT.replace("TEST", "valid"))
    assert open_split(path, classes).name == "val"
    with pytest.raises(DataError, match="no split 'test'; it has train and val"):
        open_split(path, classes, "test")
    path = table(root, rows(("dog", range(3)), ("cat", range(3, 6)), split="train"))
    with pytest.raises(DataError, match="has train, but no test or val; name the split train"):
        open_split(path, classes)
    path = table(root, PLAIN)
    assert (open_split(path, classes).name, len(open_split(path, classes, "all"))) == ("all", 20)
    with pytest.raises(DataError, match="no split 'val': it has no column"):
        open_split(path, classes, "val")
    with pytest.raises(DataError, match=r"unknown to the model: dog; did you mean dogs\?"):
        open_split(path, ("cat", "dogs"))


def test_open_split_ignores_images_of_other_splits(root: Path) -> None:
    path = table(root, SPLIT)
    (root / "0.png").unlink()
    assert len(open_split(path, ("cat", "dog"))) == 3
    with pytest.raises(DataError, match=r"1 image does not exist: 0\.png"):
        open_split(path, ("cat", "dog"), "train")


def test_opening_data_imports_no_torch() -> None:
    program = "import sys, zoo.tasks.classification.data.sources; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "False"
