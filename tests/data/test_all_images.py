"""Every image of a source, in whatever split, with a class or without."""

import pytest
from PIL import Image

import zoo
from zoo.data.all_images import open_all
from zoo.tasks.classification.data.sources import open_data


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_all_splits_count_and_nothing_is_held_out(tmp_path):
    for place in ("train/a/1.png", "train/a/2.png", "train/b/1.png", "val/a/3.png", "test/b/4.png"):
        write_image(tmp_path / place)
    every = open_all(tmp_path, open_data)
    assert [(split.name, len(split)) for split in every.splits] == [
        ("train", 3),
        ("val", 1),
        ("test", 1),
    ]
    assert every.classes == ("a", "b")
    assert len(every) == 5
    assert len(open_all(None, open_data)) == 483


def test_a_folder_of_images_has_no_classes(tmp_path):
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


def test_what_gives_other_images_each_time_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(zoo.DataError, match="no images"):
        open_all(tmp_path, open_data)
    with pytest.raises(zoo.UsageError, match="list"):
        open_all([1, 2], open_data)
