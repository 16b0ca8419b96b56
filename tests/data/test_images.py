"""Pictures that somebody hands over: one or many, in whatever form, to the same bytes."""

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
    "picture",
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
def test_every_form_gives_the_same(picture):
    assert len(list(as_many(picture))) == 1
    assert torch.equal(prepare_image(picture, SMALL).pixels, prepare(decode(PATH), SMALL))


def test_many_stay_many():
    stacked = np.stack([np.zeros((8, 8, 3), np.uint8)] * 3)
    for many in ([PATH, PATH, PATH], (PATH,) * 3, stacked):
        assert len(list(as_many(many))) == 3
    assert [len(batch) for batch in prepare_each((PATH for _ in range(5)), SMALL, 2)] == [2, 2, 1]
    assert list(prepare_each([], SMALL, 2)) == []


def test_what_a_picture_is_called(tmp_path):
    assert name_of(PATH) == name_of(str(PATH)) == str(PATH)
    assert name_of(Image.open(PATH)) == str(PATH)
    with PATH.open("rb") as file:
        assert name_of(file) == str(PATH)
    for nameless in (b"", Image.new("RGB", (2, 2)), np.zeros((2, 2, 3)), io.BytesIO()):
        assert name_of(nameless) == "image"


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 4, 3)), "no image"),
        (np.zeros((4, 4, 7), np.uint8), "no image"),
        (Path("nowhere.jpg"), "nowhere.jpg: it does not exist"),
        (b"words", "not an image"),
    ],
)
def test_what_is_no_picture_is_refused(picture, said):
    with pytest.raises(zoo.DataError, match=said):
        prepare_image(picture, SMALL)


def test_a_picture_has_three_channels_or_one():
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert prepare_image(PATH, grey).pixels.shape == (1, 16, 16)
    with pytest.raises(zoo.DataError, match="3 channels, and the network sees 5"):
        prepare_image(PATH, zoo.Preprocess(size=16, mean=(0.5,) * 5, std=(0.5,) * 5))
