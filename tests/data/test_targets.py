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


def test_error_lists_first_invalid_items():
    items = [(IMAGE, value) for value in (1.0, *["old"] * (MAX_FAULTS + 2))]
    with pytest.raises(zoo.DataError) as caught:
        read_dataset("train", items, float)
    message = caught.value.message
    assert message.startswith("data['train']: item 1: ")
    assert message.count("; item ") == MAX_FAULTS - 1
    assert message.endswith(" and 2 more")
