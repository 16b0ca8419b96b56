"""Where a network looks, written beside predicted images or into a folder."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.networks import save_untrained
from zoo.data.find import find_images
from zoo.tasks.classification.data.sources import EMBEDDED

FLAGS = sorted((EMBEDDED / "val" / "flag").iterdir())[:3]


@pytest.fixture
def model(plainnet, tmp_path):
    classes = ["flag", "mammal", "zebra"]
    return save_untrained(plainnet, tmp_path / "model.safetensors", classes)


@pytest.fixture
def photos(tmp_path):
    """Two folders, with images of one name."""
    for folder, source in zip("ab", FLAGS, strict=False):
        (tmp_path / folder).mkdir()
        shutil.copyfile(source, tmp_path / folder / "x.jpg")
    return [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg"]


def test_maps_are_written_beside_images(model, photos):
    loaded = zoo.load(model, device="cpu")
    answers = loaded.predict(photos, explain=True)
    assert [answer["explanation"] for answer in answers] == [f"{p}.explain.png" for p in photos]
    plain = loaded.predict(photos)
    assert [answer["predictions"] for answer in answers] == [a["predictions"] for a in plain]
    assert "explanation" not in plain[0]
    for path in photos:
        image = np.asarray(Image.open(f"{path}.explain.png"), dtype=int)
        with Image.open(path) as original:
            assert image.shape[1::-1] == original.size
        assert np.ptp(image, axis=2).max() > 30  # coloured
    # They are no images of the folder, but can be predicted themselves.
    assert list(find_images([str(path.parent) for path in photos])) == list(map(str, photos))
    assert "predictions" in zoo.predict(model, f"{photos[0]}.explain.png", device="cpu")[0]


def test_maps_of_folder_have_unique_names(model, photos, tmp_path):
    folder = tmp_path / "maps"
    for _ in range(2):  # a second time, they are overwritten
        answers = zoo.predict(model, photos, device="cpu", explain=folder)
        names = [Path(answer["explanation"]).name for answer in answers]
        assert names == ["x.jpg.explain.png", "x.jpg-2.explain.png"]
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_image_without_file_is_explained_into_folder(model, tmp_path):
    pixels = np.zeros((40, 50, 3), dtype=np.uint8)
    loaded = zoo.load(model, device="cpu")
    assert loaded.predict(pixels, explain=True)[0]["explanation"] is None
    answer = loaded.predict(pixels, explain=tmp_path / "maps")[0]
    assert Image.open(answer["explanation"]).size == (50, 40)


def test_maps_of_threads_equal_those_of_one(model, tmp_path):
    loaded = zoo.load(model, device="cpu")
    loaded.predict(FLAGS, explain=tmp_path / "one")

    def explain(number):
        loaded.predict(FLAGS, explain=tmp_path / f"thread{number}")

    threads = [threading.Thread(target=explain, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        for path in (tmp_path / "one").iterdir():
            assert (tmp_path / f"thread{number}" / path.name).read_bytes() == path.read_bytes()


def test_explain_option_takes_folder_or_none(cli, model, photos):
    first, second = photos
    for arguments in ([first, second, "--explain"], ["--explain", first, second]):
        code, out, _ = cli("predict", model, "--device", "cpu", *arguments)
        assert code == 0
        assert out.count("\n  map ") == 2
        for path in photos:
            Path(f"{path}.explain.png").unlink()
    code, out, _ = cli("predict", model, "--explain", "maps", first, "--json", "--device", "cpu")
    assert code == 0
    assert json.loads(out)[0]["explanation"] == "maps/x.jpg.explain.png"
    code, _, err = cli("predict", model, "--explain")
    assert code == 2
    assert "Missing argument 'IMAGE...'" in err


def test_unwritable_map_is_refused_whole(cli, model, photos, tmp_path):
    (tmp_path / "maps").write_text("a file")
    code, out, err = cli("predict", model, photos[0], "--explain=maps/a", "--device", "cpu")
    assert (code, out) == (6, "")
    assert "maps" in err
    assert (tmp_path / "maps").read_text() == "a file"


def test_task_without_maps_is_refused(cli, photos):
    name = "torchvision/lraspp_mobilenet_v3_large"
    network = zoo.get(name).build(classes=2)
    path = zoo.save(network, photos[0].parent / "m.safetensors", ["a", "b"])
    code, _, err = cli("predict", path, photos[0], "--explain", "--device", "cpu")
    assert code == 2
    assert "semantic-segmentation have no activation maps; omit --explain" in err
