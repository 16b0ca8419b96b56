"""Targets of a custom task: how faults in tables and datasets are reported."""

import pytest
from PIL import Image

import zoo
from zoo.data.targets import MAX_FAULTS, read_dataset, read_table

IMAGE = Image.new("RGB", (8, 8))


def read_row(row):
    return float(row["age"])


def test_error_lists_first_invalid_lines(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    lines = ["path,age", "a.png,1", *["a.png,old"] * (MAX_FAULTS + 1200)]
    (tmp_path / "ages.csv").write_text("\n".join(lines))
    with pytest.raises(zoo.DataError) as caught:
        read_table(tmp_path / "ages.csv", read_row)
    message = caught.value.message
    assert message.startswith(f"{tmp_path}/ages.csv: line 3: could not convert")
    assert message.count("; line ") == MAX_FAULTS - 1
    assert message.endswith(" and 1,200 more")


def test_folder_in_place_of_image_is_named(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "ages.csv").write_text("path,age\na.png,1\nb.png,2\n")
    both = "line 2: 'a.png' is not a regular file; line 3: there is no file 'b.png'"
    with pytest.raises(zoo.DataError, match=both):
        read_table(tmp_path / "ages.csv", read_row)


def test_error_lists_first_invalid_items():
    items = [(IMAGE, value) for value in (1.0, *["old"] * (MAX_FAULTS + 2))]
    with pytest.raises(zoo.DataError) as caught:
        read_dataset("train", items, float)
    message = caught.value.message
    assert message.startswith("data['train']: item 1: ")
    assert message.count("; item ") == MAX_FAULTS - 1
    assert message.endswith(" and 2 more")
