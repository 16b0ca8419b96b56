"""Tables and data sets of images with numbers: columns, splits, standardization, errors."""

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from zoo_regression.data import RegressionSchema
from zoo_regression.task import ImageRegression

import zoo
import zoo.testing
from zoo.data.loader import load_batches
from zoo.options.columns import Columns

Command = Callable[..., subprocess.CompletedProcess[str]]


def batches(data: Any, split: str = "train") -> torch.Tensor:
    transform = ImageRegression().transform(zoo.Preprocess(size=32))
    chosen = data.splits[split]
    return torch.cat([b.targets for b in load_batches(chosen, transform, range(len(chosen)), 8)])


def test_targets_are_standardized_by_the_train_split(discs: Path) -> None:
    data = ImageRegression().open_data(discs / "discs.csv", seed=3)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 96, "val": 24}
    targets = batches(data)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.std(0, correction=0), torch.ones(2))
    rows = {row["path"]: row for row in csv.DictReader((discs / "discs.csv").open())}
    val = [rows[path] for path in data.splits["val"].paths]  # type: ignore[attr-defined]
    true = [[float(row["brightness"]), float(row["x"])] for row in val]
    np.testing.assert_allclose(data.schema.in_units(batches(data, "val")), true, rtol=1e-5)  # type: ignore[attr-defined]
    other = ImageRegression().open_data(discs / "discs.csv", seed=4)
    assert other.splits["val"].paths != data.splits["val"].paths  # type: ignore[attr-defined]


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    for number in range(4):
        Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
    (folder / name).write_text(text)
    return folder / name


def test_one_report_names_every_line_that_is_wrong(tmp_path: Path, run: Command) -> None:
    path = table(
        tmp_path,
        "path,age,split\n0.png,1,train\n1.png,old,train\n2.png,nan,val\n9.png,4,test\n"
        "3.png,5,tran\n3.png,6\n",
    )
    with pytest.raises(zoo.DataError) as caught:
        ImageRegression().open_data(path)
    message = str(caught.value)
    for line, what in (
        (3, "could not convert string to float: 'old'"),
        (4, "[nan] is not age in finite numbers"),
        (5, "there is no file '9.png'"),
        (6, "its split is 'tran'; did you mean train"),
        (7, "it has 2 fields, and the first line 3"),
    ):
        assert f"line {line}: {what}" in message
    assert "line 2" not in message
    done = run("finetune", "discnet/tiny", "--data", str(path), "--weights", "none")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "line 3: " in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png,1\n1.png,2\n", "names the columns 0.png, 1"),
        ("path,split\n0.png,train\n", "names the columns path, split"),
        ("path,age\n", "it lists no images"),
        ("path,age\n0.png,3\n", "1 image is to train on"),
        ("path,age\n0.png,3\n1.png,3\n2.png,3\n", "age is the same for all training images"),
        ("path,age,split\n0.png,3,val\n1.png,3,test\n", "0 images are to train on"),
    ],
)
def test_a_table_that_cannot_be_trained_on(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(zoo.DataError, match=message):
        ImageRegression().open_data(table(tmp_path, text))


def test_splits_as_listed_and_columns_by_name(tmp_path: Path) -> None:
    task = ImageRegression()
    text = "split\tage\tpath\tsize\ntrain\t1\t0.png\t5\nval\t2\t1.png\t6\ntest\t4\t2.png\t7\n"
    path = table(tmp_path, text + "train\t3\t3.png\t8\n", "table.tsv")
    data = task.open_data(path)
    assert data.schema == RegressionSchema((), ("age", "size"), (2.0, 6.5), (1.0, 1.5))
    assert {name: list(split.targets) for name, split in data.splits.items()} == {
        "train": [(-1.0, -1.0), (1.0, 1.0)],
        "val": [(0.0, pytest.approx(-1 / 3))],
        "test": [(2.0, pytest.approx(1 / 3))],
    }
    schema = RegressionSchema((), ("size",), (0.0,), (2.0,))
    assert task.open_split(path, schema).targets == ((3.5,),)
    assert task.open_split(path, schema, "val").targets == ((3.0,),)
    with pytest.raises(zoo.DataError, match="has no column 'depth'"):
        task.open_split(path, RegressionSchema((), ("depth",), (0.0,), (1.0,)))


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("t.csv", "file_name,age,set\n0.png,1,train\n1.png,3,train\n2.png,2,valid\n", None),
        ("t.csv", "age;path;split\n1;.\\0.png;train\n3;1;Training\n2;2;val\n", None),
        ("t.csv", "path,x,age\n2.png,train,1\n3.png,train,3\n1.png,val,2\n", "split=x"),
        ("t.csv", "a,b,age,split\n2,0.png,1,train\n3,1.png,3,train\n1,2.png,2,val\n", "image=b"),
        ("t.jsonl", "".join(f'{{"img": "{i}.png", "age": {i % 3}}}\n' for i in range(4)), None),
    ],
)
def test_columns_of_images_and_splits_are_found(
    tmp_path: Path, name: str, text: str, columns: str | None
) -> None:
    given = None if columns is None else Columns.parse(columns)
    path = table(tmp_path, text, name)
    if columns == "image=b":
        assert ImageRegression().open_data(path, columns=given).schema.targets == ("a", "age")
        return
    data = ImageRegression().open_data(path, columns=given)
    assert data.schema.targets == ("age",)
    assert data.schema.mean == ((2.0,) if "train" in text else data.schema.mean)
    assert data.splits["train"].image(0).size == (32, 32)


def test_a_dataset_s_bad_items_are_named_together() -> None:
    items = [(Image.new("RGB", (32, 32)), value) for value in (1.0, float("inf"), 3.0, "five")]
    with pytest.raises(zoo.DataError) as caught:
        ImageRegression().open_data({"train": Listed(items)})
    assert "item 1: inf is not value1 in finite numbers; item 3: " in str(caught.value)


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]
