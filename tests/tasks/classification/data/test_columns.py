"""Tables as people have them: names of columns, formats, paths and splits."""

import json
import unicodedata
from pathlib import Path

import pytest

from tests.tasks.classification.data.test_folder import make
from zoo.data.split import ImageData
from zoo.errors import DataError, UsageError
from zoo.options.columns import Columns, read_columns
from zoo.tasks.classification.data.sources import open_data, open_split

LABELS = ["cat", "dog", "cat", "dog", "cat", "dog", "cat", "dog", "cat", "dog"]
# The last of each class is of val.
SPLITS = ["train"] * 8 + ["val"] * 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path, "{10}.png", "images/{10}.jpg", "more/deep/im {10}.png")


def write(root: Path, name: str, *lines: str) -> Path:
    path = root / name
    path.write_text("\n".join(lines) + "\n")
    return path


def table(root: Path, header: str, row: str, name: str = "labels.csv") -> Path:
    """Write a header, if any, and a row for each image: `row` is formatted with i, label, split."""
    pairs = zip(range(10), LABELS, SPLITS, strict=True)
    rows = [row.format(i=i, label=label, split=split) for i, label, split in pairs]
    return write(root, name, *([header] if header else []), *rows)


def splits_of(data: ImageData) -> dict[str, dict[str, str]]:
    """Return the class of each image by its number, by split."""
    return {
        name: {
            "".join(c for c in Path(split.where(n)).stem if c.isdigit()): data.classes[label]
            for n, label in enumerate(split.targets)
        }
        for name, split in data.splits.items()
    }


GIVEN = {
    "train": {str(i): LABELS[i] for i in range(8)},
    "val": {str(i): LABELS[i] for i in (8, 9)},
}


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,label,split", "{i}.png,{label},{split}"),
        ("file_name,label,split", "{i}.png,{label},{split}"),
        ("filepath,target,set", "images/{i}.jpg,{label},{split}"),
        ("filenames,cats,is_valid", "images/{i}.jpg,{label},{split}_"),
        ("img,category,subset", "{i}.png,{label},{split}"),
        ("class id,filepaths,labels,data set,name", "7,{i}.png,{label},{split},x y"),
        ("Image Path,Class Name,Usage", "{i}.png,{label},{split}"),
        ("id,breed,part", "{i},{label},{split}"),
        ("", "{i}.png,{label},{split}"),
        ("", "{label},{i}.png,{split}"),
        ("", "{split},{label},{i}.png"),
        ("where,what,when", "{i}.png,{label},{split}"),
        ("phase,animal,picture", "{split},{label},images/{i}.jpg"),
        ("path,label,test", "{i}.png,{label},-{split}"),
    ],
)
def test_columns_are_recognised_by_name_and_content(root: Path, header: str, row: str) -> None:
    path = table(root, header, row)
    text = path.read_text().replace("train_", "False").replace("val_", "True")
    path.write_text(text.replace("-train", "0").replace("-val", "1"))
    if header.endswith("test"):
        data = open_data(path)
        assert splits_of(data)["test"] == GIVEN["val"]
        assert "column test: true is test, false is train" in data.notices
        return
    data = open_data(path)
    assert splits_of(data) == GIVEN
    assert data.reason == "train and val as listed"


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("t.csv", "path;label;split", "{i}.png;{label};{split}"),
        ("t.csv", "", "{i}.png;{label};{split}"),
        ("t.csv", "\ufefffile_name;label;split", "{i}.png;{label};{split}"),
        ("t.tsv", "path\tlabel\tsplit", "{i}.png\t{label}\t{split}"),
        ("t.tsv", "path,label,split", "{i}.png,{label},{split}"),
        ("t.csv", "path|label|split", "{i}.png|{label}|{split}"),
        ("t.txt", "", "{i}.png {label} {split}"),
        ("t.txt", "path label split", "{i}.png {label} {split}"),
        ("t.txt", "", "{i}.png\t{label}\t{split}"),
        ("t.txt", "", "more/deep/im {i}.png {label} {split}"),
        ("t.lst", "", "{i}.png,{label},{split}"),
        ("t.csv", "path,label,split", "images\\{i}.jpg,{label},{split}"),
        ("t.csv", "path,label,split", ".\\images\\{i}.jpg,{label},{split}"),
        ("t.jsonl", "", '{{"file_name": "{i}.png", "label": "{label}", "split": "{split}"}}'),
        ("t.ndjson", "\n", '{{"label": "{label}", "split": "{split}", "x": [1], "f": "{i}.png"}}'),
    ],
)  # fmt: skip
def test_formats_are_recognised(root: Path, name: str, header: str, row: str) -> None:
    data = open_data(table(root, header, row, name))
    assert splits_of(data) == GIVEN


def test_text_list_of_path_and_label(root: Path) -> None:
    labels = [str(i % 2 + 9) for i in range(10)]
    lines = [f"more/deep/im {i}.png {label}" for i, label in enumerate(labels)]
    data = open_data(write(root, "train.txt", *lines))
    assert data.classes == ("9", "10")
    assert sum(len(split) for split in data.splits.values()) == 10
    assert splits_of(data)["train"].items() <= {str(i): labels[i] for i in range(10)}.items()


def test_json_lines_keep_types_and_report_lines(root: Path) -> None:
    rows = [{"file_name": f"{i}.png", "label": i % 2} for i in range(10)]
    rows[3]["split"] = None  # type: ignore[assignment]
    path = write(root, "metadata.jsonl", *map(json.dumps, rows))
    assert open_data(path).classes == ("0", "1")
    rows[4]["label"] = [0, 1]  # type: ignore[assignment]
    write(root, "metadata.jsonl", *map(json.dumps, rows))
    with pytest.raises(DataError, match=r"1 line has several labels: \[0, 1\] \(line 5\)"):
        open_data(path)
    write(root, "metadata.jsonl", json.dumps(rows[0]), "{", json.dumps(rows[1]))
    with pytest.raises(DataError, match=r"metadata.jsonl: 1 line is no object: line 2, column 2: "):
        open_data(path)
    write(root, "metadata.jsonl", json.dumps(rows[0]), "[1]", json.dumps(rows[1]), '{"a" 3}')
    lines = "line 2 is a list, not an object; line 4, column 6: Expecting ':' delimiter; write"
    with pytest.raises(DataError, match=f"metadata.jsonl: 2 lines are no object: {lines}"):
        open_data(path)


@pytest.mark.parametrize(
    ("row", "base"),
    [("{i}.jpg", "images/"), ("{i}", ""), ("im {i}", "more/deep/"), ("deep/im {i}.png", "more/")],
)
def test_other_folders_and_missing_suffixes_are_found(root: Path, row: str, base: str) -> None:
    data = open_data(table(root, "id,label,split", row + ",{label},{split}"))
    assert splits_of(data) == GIVEN
    relative = [f"paths are relative to {base}"] if base else []
    assert [line for line in data.notices if "relative" in line] == relative


def test_paths_from_the_folder_above_are_found(root: Path) -> None:
    data = open_data(table(root, "", root.name + "/{i}.png,{label},{split}"))
    assert splits_of(data) == GIVEN
    assert data.splits["train"].image(0).size == (2, 2)


@pytest.mark.parametrize(
    ("prefix", "name"), [("C:\\data\\", "images\\{i}.jpg"), ("/home/other/set/", "images/{i}.jpg")]
)
def test_absolute_paths_of_another_machine_are_found(root: Path, prefix: str, name: str) -> None:
    data = open_data(table(root, "path,label,split", prefix + name + ",{label},{split}"))
    assert splits_of(data) == GIVEN
    assert data.notices == (f"paths are read without {prefix}".replace("\\", "/"),)


def test_ids_and_labels_of_a_folder_of_images_are_found(tmp_path: Path) -> None:
    make(tmp_path, "train/im{10}.jpg", "test/x{4}.jpg")
    data = open_data(table(tmp_path, "id,breed", "im{i},{label}"))
    assert data.notices == ("columns: image id, label breed", "paths are relative to train/")
    assert sum(len(split) for split in data.splits.values()) == 10


def test_numbers_and_names_of_classes_are_one_column(root: Path) -> None:
    path = table(root, "path,label,label_name", "{i}.png,{label},{label}")
    text = path.read_text().replace(",cat,", ",0,").replace(",dog,", ",1,")
    path.write_text(text)
    assert open_data(path).classes == ("cat", "dog")
    path.write_text(text.replace("3.png,1", "3.png,0"))
    with pytest.raises(DataError, match="2 columns for the label: label, label_name"):
        open_data(path)


def test_indicator_columns_are_refused(root: Path) -> None:
    for header in ("image,cat,dog", "image,tabby,poodle"):
        path = table(root, header, "{i}.png,{label}")
        path.write_text(path.read_text().replace("g,cat", "g,1,0").replace("g,dog", "g,0,1"))
        with pytest.raises(DataError, match=r"column of 0 and 1 for each class: \w+, \w+; write"):
            open_data(path)


def test_images_of_several_folders_are_found_once(root: Path) -> None:
    for i in range(5):
        (root / f"{i}.png").unlink()
        (root / "images" / f"{i}.jpg").rename(root / f"{i}.jpg")
        (root / "images" / f"{i + 5}.jpg").unlink()
    for path in root.glob("?.png"):
        path.rename(root / "more" / path.name)
    data = open_data(table(root, "id,label,split", "{i},{label},{split}"))
    assert len(data.splits["train"]) == 8
    make(root, "0.png", "1.gif")
    with pytest.raises(
        DataError, match=r"2 images are found twice: 0: 0\.jpg and 0\.png \(line 2\)"
    ):
        open_data(root / "labels.csv")


def test_accents_of_paths_and_labels_match(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Pájaro") for form in ("NFC", "NFD"))
    make(tmp_path, f"{decomposed}/{decomposed}{{4}}.png", f"{composed}{{4}}.png")
    lines = [f"{composed}/{composed}{i}.png,{composed}" for i in range(4)]
    lines += [f"{decomposed}{i},{decomposed if i else 'Pez'}" for i in range(4)]
    data = open_data(write(tmp_path, "t.csv", *lines))
    assert data.classes == ("Pez", composed)
    assert all(split.image(0).size == (2, 2) for split in data.splits.values())
    assert open_split(tmp_path / "t.csv", ("Pez", decomposed)).counts(2) == (1, 7)


def test_given_columns_decide(root: Path) -> None:
    header = "image,photo,label,kind,split,fold"
    path = table(root, header, "{i}.png,images/{i}.jpg,x,{label},train,{split}")
    columns = Columns(image="photo", label="kind", split="fold")
    data = open_data(path, columns=columns)
    assert splits_of(data) == GIVEN
    assert data.splits["val"].where(0).endswith("images/8.jpg")
    assert open_split(path, ("dog", "cat"), columns=columns).targets == (1, 0)
    assert len(open_data(path, columns=Columns("photo", "kind", "none")).splits["train"]) == 8
    path = table(root, "", "{i}.png,{split},{label}", "bare.csv")
    numbers = Columns.parse("image=1,label=3,split=2")
    assert splits_of(open_data(path, columns=numbers)) == GIVEN
    with pytest.raises(DataError, match=r"has no column 'kindd', of --columns label=kindd; it has"):
        open_data(root / "labels.csv", columns=Columns(label="kindd"))


@pytest.mark.parametrize(
    ("header", "row", "message", "hint"),
    [
        ("path,label,set", "{i}.png,{label},A", "names a column set, which holds A", "split=none"),
        ("path,label,fold", "{i}.png,{label},{i}", "column fold, which holds 0, 1, 2", "none"),
        ("path,label,set,part", "{i}.png,{label},{split},{split}", "2 columns for the split", ""),
        ("path,age,sex", "{i}.png,{i},{label}", "names no column label or class", "label=NAME"),
        ("image,path,label", "{i}.png,images/{i}.jpg,{label}", "2 columns for the path", "image="),
    ],
)  # fmt: skip
def test_ambiguous_columns_are_refused(
    root: Path, header: str, row: str, message: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_data(table(root, header, row))
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_labels_that_are_words_for_splits_are_labels(root: Path) -> None:
    path = table(root, "path,label", "{i}.png,{split}")
    assert open_data(path).classes == ("train", "val")
    assert open_data(table(root, "", "{i}.png,{split}")).classes == ("train", "val")
    path = table(root, "path,valid", "{i}.png,{split}")
    path.write_text(path.read_text().replace(",train", ",0").replace(",val", ",1"))
    assert open_data(path).classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        ("cat|dog|cat dog", ["cat dog"]),
        ("a b c|a|b|c", ["a b c"]),
        ("clear primary|clear primary water|haze primary|haze primary water|primary water",
         ["clear primary water"]),
        ("fresh green apple|green apple|fresh apple", []),
        ("cat,dog|cat|dog", ["cat,dog"]),
        ("cat/dog|cat|dog", ["cat/dog"]),
        ("in/chair|out/chair|in/table|out/table", []),
        ("red;small|red;large|blue;small|blue;large", ["red;small"]),
        ("polar bear|brown bear|bear", []),
        ("fresh apple|rotten apple|fresh banana|rotten banana|fresh kiwi|rotten kiwi", []),
        ("Paris, France|Lyon, France|Rome, Italy", []),
    ],
)  # fmt: skip
def test_cells_with_several_labels_are_refused(
    tmp_path: Path, labels: str, several: list[str]
) -> None:
    names = labels.split("|")
    count = 3 * len(names)
    make(tmp_path, f"{{{count}}}.png")
    lines = [f'{i}.png,"{names[i % len(names)]}"' for i in range(count)]
    path = write(tmp_path, "t.csv", *lines)
    if not several:
        assert open_data(path).classes == tuple(sorted(names))
        return
    with pytest.raises(DataError) as caught:
        open_data(path)
    line = names.index(several[0]) + 1
    assert f"have several labels: {several[0]} (line {line})" in caught.value.message
    assert "one class" in str(caught.value.hint)


def test_columns_are_parsed_from_text_or_mapping(root: Path) -> None:
    parsed = Columns("a, b", "c", "none")
    assert Columns.parse("image=a, b,label=c , split=none") == parsed
    assert Columns.parse({"image": "a, b", "label": "c", "split": "none"}) == parsed
    assert Columns.parse(str(parsed)) == read_columns(parsed) == parsed
    for text, message in (
        ("picture=a", "names the role 'picture'"),
        ("image=a,image=b", "names the role image twice"),
        ("image=", "names the role image without a column"),
        ("a", "names the role 'a'"),
    ):
        with pytest.raises(UsageError, match=message):
            read_columns(text)
    with pytest.raises(UsageError, match="is not a table"):
        open_data(root, columns=parsed)


def test_metadata_of_flat_folder_is_read(tmp_path: Path) -> None:
    flat = make(tmp_path / "flat", "{10}.png")
    table(flat, "file_name,label,split", "{i}.png,{label},{split}", "metadata.csv")
    assert splits_of(open_data(flat)) == GIVEN
    assert open_split(flat, ("dog", "cat")).targets == (1, 0)
    (flat / "metadata.csv").rename(flat / "train.csv")
    with pytest.raises(DataError, match=r"no class folders .*--data .*/flat/train\.csv"):
        open_data(flat)
