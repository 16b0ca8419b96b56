"""Samples have the same bytes in training, validation, evaluation and prediction."""

from hashlib import sha256
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

from zoo.data.augment import Draw
from zoo.data.dataset import Sample, SampleTransform, read_sample
from zoo.data.decode import decode
from zoo.data.images import prepare_image
from zoo.data.split import FileSplit
from zoo.data.transforms import Transform, normalize, prepare
from zoo.data.user_dataset import DatasetSplit
from zoo.options import Augmentation
from zoo.spec import Preprocess

SMALL = Preprocess(64)


@pytest.fixture
def large(tmp_path: Path) -> FileSplit:
    """A JPEG that is decoded at a quarter of its size."""
    Image.fromarray(skimage.data.retina()).save(tmp_path / "retina.jpg")
    return FileSplit("all", tmp_path, ("retina.jpg",), (0,))


def pixels(split: FileSplit, augment: str | None = None) -> torch.Tensor:
    draw = Draw(Augmentation.parse(augment), seed=0, epoch=0) if augment else None
    sample = read_sample(split, SampleTransform(SMALL), 0, draw)
    assert isinstance(sample, Sample)
    return sample.input


def test_large_jpeg_is_identical_on_every_path(large: FileSplit) -> None:
    path = large.path(0)
    seen = pixels(large)
    assert not torch.equal(seen, prepare(decode(path), SMALL))
    for source in (path, str(path), path.read_bytes(), path.open("rb")):
        assert torch.equal(seen, prepare_image(source, SMALL).pixels)
    assert torch.equal(Transform(SMALL)(path), normalize(seen[None], SMALL)[0])
    digested = read_sample(large, SampleTransform(SMALL), 0, digest=True)
    assert torch.equal(seen, digested.input)
    assert digested.digest == sha256(path.read_bytes()).digest()
    # A mirror changes nothing of how it is decoded; the probability of 1 leaves no choice.
    assert torch.equal(seen, pixels(large, "flip:1").flip(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_prepared_tensors_become_float32(dtype: torch.dtype) -> None:
    image = torch.linspace(-2, 2, 3 * 64 * 64).reshape(3, 64, 64).to(dtype)
    split = DatasetSplit("train", [(image, 1)], (0,), (1,))
    sample = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(sample, Sample)
    assert sample.input.dtype == torch.float32
    assert torch.equal(sample.input, image.to(torch.float32))
    assert sample.target == 1


def test_random_crop_decodes_at_full_resolution(large: FileSplit) -> None:
    path = large.path(0)
    draw = Draw(Augmentation.parse("crop"), seed=0, epoch=0)
    assert torch.equal(pixels(large, "crop"), draw(decode(path), SMALL, 0))


def test_pil_image_is_decoded_at_full_resolution(large: FileSplit) -> None:
    path = large.path(0)
    assert torch.equal(prepare_image(Image.open(path), SMALL).pixels, prepare(decode(path), SMALL))
