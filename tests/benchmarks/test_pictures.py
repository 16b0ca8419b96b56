import json

import pytest
from PIL import Image

from benchmarks import pictures

EACH = (2, 1)


@pytest.fixture
def work(tmp_path):
    """A folder with drawings as the package has them: ten classes, and one that is too small."""
    drawings = tmp_path / "work/clipart" / pictures.DRAWINGS
    for number in range(11):
        folder = drawings / f"class{number:02}" / "deeper"
        folder.mkdir(parents=True)
        for name in range(4 if number else 2):
            color = (20 * number, 60 * name, 90, 128)
            Image.new("RGBA", (60 + 30 * (name % 2), 75), color).save(folder / f"{name}.png")
    (drawings / "class01/deeper/broken.png").write_bytes(b"no picture")
    return tmp_path / "work"


def test_pictures_are_photos_in_size(work):
    made = pictures.make(work, EACH)
    for split, count in zip(("train", "val"), EACH, strict=True):
        folders = sorted((made / split).iterdir())
        assert [folder.name for folder in folders] == [f"class{n:02}" for n in range(1, 11)]
        for file in (file for folder in folders for file in folder.iterdir()):
            with Image.open(file) as image:
                assert image.format == "JPEG"
                assert sorted(image.size) == sorted(pictures.SIZE)
        assert all(len(list(folder.iterdir())) == count for folder in folders)
    said = json.loads((made / "made.json").read_text())
    assert said["images"] == 30
    assert said["mean_bytes"] > 10_000


def test_they_are_the_same_each_time(work, tmp_path):
    def contents(folder):
        return {
            str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))
        }

    (tmp_path / "again").mkdir()
    (tmp_path / "again/clipart").symlink_to(work / "clipart")
    first = contents(pictures.make(work, EACH))
    assert first == contents(pictures.make(tmp_path / "again", EACH))
    assert len(set(first.values())) == 31


def test_a_drawing_of_too_many_pixels_is_left_out(work):
    drawings = work / "clipart" / pictures.DRAWINGS
    bomb = drawings / "class02/deeper/bomb.png"
    Image.new("1", (10_000, 10_000)).save(bomb)
    chosen = pictures.classes_of(drawings, 4)
    assert bomb not in chosen["class02"]
    with pytest.raises(pictures.NoPictures, match="no 10 classes of 5"):
        pictures.classes_of(drawings, 5)


def test_it_says_why_there_are_none(tmp_path, monkeypatch):
    (tmp_path / "wrong.deb").write_text("no package")
    with pytest.raises(pictures.NoPictures, match=r"wrong\.deb cannot be unpacked|no dpkg"):
        pictures.make(tmp_path / "work", EACH, tmp_path / "wrong.deb")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pictures.NoPictures, match=r"there is no apt-get; .* --package FILE"):
        pictures.make(tmp_path / "work", EACH)
