"""All images of a source, labelled or not, whatever their split."""

import pytest
from PIL import Image

import zoo
from zoo.data.all_images import open_all
from zoo.tasks.classification.data.sources import open_data


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_open_all_includes_every_split(tmp_path):
    for path in ("train/a/1.png", "train/a/2.png", "train/b/1.png", "val/a/3.png", "test/b/4.png"):
        write_image(tmp_path / path)
    every = open_all(tmp_path, open_data)
    assert [(split.name, len(split)) for split in every.splits] == [
        ("train", 3),
        ("val", 1),
        ("test", 1),
    ]
    assert every.classes == ("a", "b")
    assert len(every) == 5
    assert every.largest_share == 3 / 5
    assert len(open_all(None, open_data)) == 483


def test_open_all_flat_folder_has_no_classes(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    every = open_all(str(tmp_path), open_data)
    assert every.classes == ()
    (split,) = every.splits
    assert [split.where(index) for index in range(len(split))] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
    ]
    assert every.notices


def test_open_all_rejects_dataset_objects(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(zoo.DataError, match="no images"):
        open_all(tmp_path, open_data)
    with pytest.raises(zoo.UsageError, match="list"):
        open_all([1, 2], open_data)
