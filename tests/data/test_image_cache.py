"""Image cache: each image is decoded once, with the same batches as from the files."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from zoo.data import image_cache
from zoo.data.dataset import SampleTransform
from zoo.data.image_cache import ImageCache, bytes_needed, storage_location
from zoo.data.loader import batch_bounds, load_batches
from zoo.data.split import FileSplit

SMALL = zoo.Preprocess(size=16, resize=20)
COUNT = 11


@pytest.fixture
def split(tmp_path) -> FileSplit:
    names = []
    for number in range(COUNT):
        names.append(f"{number}.png")
        color = (number * 20, 255 - number * 20, number)
        Image.radial_gradient("L").convert("RGB").resize((30, 24)).save(tmp_path / names[-1])
        image = Image.open(tmp_path / names[-1])
        image.paste(color, (0, 0, number + 1, 12))
        image.save(tmp_path / names[-1])
    (tmp_path / "3.png").write_bytes(b"nothing")
    return FileSplit("train", tmp_path, tuple(names), tuple(n % 3 for n in range(COUNT)))


def read(split, order, stored=None, workers=0, size=4):
    """Return all batches, and how many positions were loaded from the files."""
    asked = []

    def load(some, bounds):
        asked.extend(some)
        return load_batches(split, SampleTransform(SMALL), some, size, workers, bounds=bounds)

    bounds = batch_bounds(len(order), size)
    source = load(order, bounds) if stored is None else stored.read(order, bounds, load, False)
    return list(source), len(asked)


def same(one, two) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.inputs, b.inputs)
        and a.inputs.stride() == b.inputs.stride()
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.indices, b.indices)
        and a.bad == b.bad
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [image_cache.IN_MEMORY, 0])
def test_cache_reads_each_image_once(split, monkeypatch, workers, in_memory):
    monkeypatch.setattr(image_cache, "IN_MEMORY", in_memory)
    monkeypatch.setattr(image_cache, "FREE_MARGIN", 0)
    stored = ImageCache({"train": split}, SMALL).split(split, SMALL)
    orders = ([5, 3, 0, 1, 2], list(range(COUNT)), [10, 9, 3, 4, 5, 0, 2, 8, 7, 6, 1])
    asked = []
    for order in orders:
        cached, count = read(split, order, stored, workers)
        assert same(cached, read(split, order)[0]), order
        asked.append(count)
    assert asked == [5, 6, 0]


def test_cached_images_outlive_their_files(split):
    stored = ImageCache({"train": split}, SMALL).split(split, SMALL)
    first, _ = read(split, range(COUNT), stored)
    for path in Path(split.root).iterdir():
        path.unlink()
    assert same(read(split, range(COUNT), stored)[0], first)
    assert [bad.path for batch in first for bad in batch.bad] == [str(split.path(3))]


def test_interrupted_pass_is_cached(split):
    stored = ImageCache({"train": split}, SMALL).split(split, SMALL)

    def load(order, bounds):
        return load_batches(split, SampleTransform(SMALL), order, 4, bounds=bounds)

    next(stored.read(range(COUNT), batch_bounds(COUNT, 4), load, False))
    assert read(split, range(COUNT), stored)[1] == COUNT - 4


def test_cache_file_is_unnamed(split, monkeypatch, tmp_path):
    monkeypatch.setattr(image_cache, "IN_MEMORY", 0)
    monkeypatch.setattr(image_cache, "FREE_MARGIN", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert storage_location(1000) == f"in a temporary file in {tmp_path / 'cache' / 'zoo'}"
    cache = ImageCache({"train": split}, SMALL)
    read(split, range(COUNT), cache.split(split, SMALL))
    assert list((tmp_path / "cache" / "zoo").iterdir()) == []


def test_cache_ignores_other_preprocess(split):
    cache = ImageCache({"train": split}, SMALL)
    assert cache.split(split, zoo.Preprocess(size=24)) is None
    other = FileSplit("val", split.root, split.paths, split.targets)
    assert cache.split(other, SMALL) is None


def test_cache_without_disk_space_raises(split):
    far = bytes_needed(10**12, SMALL)
    assert storage_location(far) is None
    with pytest.raises(zoo.EnvironmentProblem, match="no room for"):
        image_cache._in_file(far)
