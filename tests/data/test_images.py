"""Images passed as paths, bytes, files, PIL images or arrays."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.decode import decode
from zoo.data.images import as_many, name_of, prepare_each, prepare_image
from zoo.data.transforms import prepare
from zoo.tasks.classification.data.sources import EMBEDDED

SMALL = zoo.Preprocess(size=16)
PATH = sorted((EMBEDDED / "val" / "flag").iterdir())[0]


@pytest.mark.parametrize(
    "image",
    [
        PATH,
        str(PATH),
        PATH.read_bytes(),
        io.BytesIO(PATH.read_bytes()),
        decode(PATH),
        np.asarray(decode(PATH)),
    ],
    ids=["path", "text", "bytes", "file", "pil", "array"],
)
def test_prepare_image_of_any_type_equals_file(image):
    assert len(list(as_many(image))) == 1
    assert torch.equal(prepare_image(image, SMALL).pixels, prepare(decode(PATH), SMALL))


def test_as_many_and_prepare_each_keep_sequences():
    stacked = np.stack([np.zeros((8, 8, 3), np.uint8)] * 3)
    for many in ([PATH, PATH, PATH], (PATH,) * 3, stacked):
        assert len(list(as_many(many))) == 3
    assert [len(batch) for batch in prepare_each((PATH for _ in range(5)), SMALL, 2)] == [2, 2, 1]
    assert list(prepare_each([], SMALL, 2)) == []


def test_name_of_returns_path_or_image(tmp_path):
    assert name_of(PATH) == name_of(str(PATH)) == str(PATH)
    assert name_of(Image.open(PATH)) == str(PATH)
    with PATH.open("rb") as file:
        assert name_of(file) == str(PATH)
    for nameless in (b"", Image.new("RGB", (2, 2)), np.zeros((2, 2, 3)), io.BytesIO()):
        assert name_of(nameless) == "image"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "not an image"),
        (np.zeros((4, 4, 7), np.uint8), "not an image"),
        (Path("nowhere.jpg"), "nowhere.jpg: it does not exist"),
        (b"words", "not an image"),
    ],
)
def test_prepare_image_rejects_invalid_input(image, message):
    with pytest.raises(zoo.DataError, match=message):
        prepare_image(image, SMALL)


def test_prepare_image_checks_channels():
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert prepare_image(PATH, grey).pixels.shape == (1, 16, 16)
    with pytest.raises(zoo.DataError, match="3 channels, and the network sees 5"):
        prepare_image(PATH, zoo.Preprocess(size=16, mean=(0.5,) * 5, std=(0.5,) * 5))
