"""Images passed as paths, bytes, files, PIL images or arrays."""

import io
import re
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.decode import decode
from zoo.data.geometry import geometry_of
from zoo.data.images import as_many, name_of, prepare_image
from zoo.data.transforms import Transform, normalize, prepare, prepare_source
from zoo.data.user_dataset import to_image
from zoo.tasks.classification.data.sources import EMBEDDED

SMALL = zoo.Preprocess(size=16)
PATH = sorted((EMBEDDED / "val" / "flag").iterdir())[0]


@pytest.mark.parametrize(
    "image",
    [
        PATH,
        str(PATH),
        PATH.read_bytes(),
        bytearray(PATH.read_bytes()),
        memoryview(PATH.read_bytes()),
        PurePath(PATH),
        io.BytesIO(PATH.read_bytes()),
        decode(PATH),
        np.asarray(decode(PATH)),
        torch.from_numpy(np.array(decode(PATH))).permute(2, 0, 1),
        np.asarray(decode(PATH).convert("RGBA")),
    ],
    ids=[
        "path",
        "text",
        "bytes",
        "bytearray",
        "view",
        "pure",
        "file",
        "pil",
        "array",
        "tensor",
        "rgba",
    ],
)
def test_prepare_image_of_any_type_equals_file(image):
    assert len(list(as_many(image))) == 1
    expected = prepare(decode(PATH), SMALL)
    assert torch.equal(prepare_image(image, SMALL).pixels, expected)
    assert torch.equal(Transform(SMALL)(image), normalize(expected[None], SMALL)[0])


def test_grey_arrays_and_tensors_are_one_image_each():
    grey = np.arange(24 * 20, dtype=np.uint32).reshape(24, 20).astype(np.uint8)
    expected = prepare(decode(Image.fromarray(grey)), SMALL)
    tensor = torch.from_numpy(grey)
    for image in (grey, grey[..., None], tensor, tensor[None]):
        assert len(list(as_many(image))) == 1
        assert torch.equal(prepare_image(image, SMALL).pixels, expected)
        assert torch.equal(prepare_source(image, SMALL), expected)
        assert torch.equal(Transform(SMALL)(image), normalize(expected[None], SMALL)[0])
        assert np.array_equal(np.asarray(to_image(image))[..., 0], grey)
    wide = grey.astype(np.uint16) * 257
    assert torch.equal(prepare_image(wide, SMALL).pixels, expected)


def test_float_tensor_is_prepared_already():
    prepared = Transform(SMALL)(PATH)
    again = prepare_image(prepared.double(), SMALL)
    assert torch.equal(again.pixels, prepared)
    assert torch.equal(Transform(SMALL)(prepared), prepared)
    pixels = torch.from_numpy(np.array(again.open())).permute(2, 0, 1)
    assert torch.equal(pixels, prepare(decode(PATH), SMALL))
    assert geometry_of(again.size, again.preprocess).scaled == again.size == (16, 16)
    for wrong in (prepared[:2], prepared[None], prepared[0]):
        with pytest.raises(zoo.DataError, match="is no prepared image"):
            prepare_image(wrong, SMALL)


def test_as_many_returns_batches_and_iterables():
    stacked = np.stack([np.zeros((8, 8, 3), np.uint8)] * 3)
    column = np.array([str(PATH)] * 3)
    for many in (
        [PATH] * 3,
        (PATH,) * 3,
        column,
        column.astype(object),
        stacked,
        torch.zeros(3, 3, 8, 8),
    ):
        assert len(list(as_many(many))) == 3
    paths = (PATH for _ in range(2))
    assert as_many(paths) is paths
    with pytest.raises(zoo.UsageError, match="a int is no image"):
        as_many(5)


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
        ("https://a.org/b.jpg", "cannot read https://a.org/b.jpg: it is an address, not a file"),
        (np.zeros(4, np.uint8), "an array [4] of uint8 is not an image"),
        (np.zeros((0, 4, 3), np.uint8), "is not an image"),
        (torch.zeros(5, 4, 4, dtype=torch.uint8), "a tensor [5, 4, 4] of uint8 is not an image"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "of int64 is not an image"),
        (None, "a NoneType is no image"),
    ],
)
def test_prepare_image_rejects_invalid_input(image, message):
    for prepared in (prepare_image, prepare_source):
        with pytest.raises(zoo.DataError, match=re.escape(message)):
            prepared(image, SMALL)


def test_prepare_image_checks_channels():
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert prepare_image(PATH, grey).pixels.shape == (1, 16, 16)
    with pytest.raises(zoo.DataError, match="3 channels, and the network sees 5"):
        prepare_image(PATH, zoo.Preprocess(size=16, mean=(0.5,) * 5, std=(0.5,) * 5))
