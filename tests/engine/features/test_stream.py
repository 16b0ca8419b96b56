"""Batches that an engine's threads read: the features, images and errors of any other order."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.bad_images import UnreadableImages
from zoo.data.split import FileSplit
from zoo.engine.backends.choice import engine_of
from zoo.engine.features.stream import stream_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.task import ImageClassification

CPU = torch.device("cpu")
TASK = ImageClassification()
IMAGES, BATCH = 23, 4


@dataclass(frozen=True)
class Watched(FileSplit):
    """Records the thread that reads each image, and fails at one, where it is asked to."""

    threads: dict[int, str] = field(default_factory=dict)
    fails: list[int] = field(default_factory=list)

    def sample(self, index, at_least=None, content=None):
        self.threads[index] = threading.current_thread().name
        if index in self.fails:
            raise IndexError(index)
        return super().sample(index, at_least, content)


@pytest.fixture
def split(tmp_path):
    """Images of noise; the sixth is damaged, and so are all of the fourth batch."""
    generator = np.random.default_rng(0)
    names = tuple(f"{number}.png" for number in range(IMAGES))
    for number, name in enumerate(names):
        if number in (5, 12, 13, 14, 15):
            (tmp_path / name).write_bytes(b"no image")
            continue
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / name)
    return Watched("train", tmp_path, names, tuple(range(IMAGES)))


@pytest.fixture
def engine(tinynet, own_cache):
    torch.manual_seed(0)
    module = zoo.get(tinynet).build(classes=3, weights=None)
    freeze(module)
    made = provenance_of(module)
    network = Network(module, made.backbone.heads, made.preprocess, CPU, "fp32", TASK)
    engine = engine_of(network, "openvino", BATCH)
    engine.load()
    return engine


def reader_of(engine, bad_images="skip"):
    transform = TASK.transform(engine.network.preprocess)
    return ImageReader(transform, CPU, BATCH, bad_images=bad_images)


def running():
    return [each for each in threading.enumerate() if each.name.startswith("zoo-read")]


@pytest.mark.parametrize("threads", [1, 3])
def test_features_do_not_depend_on_threads_that_read(split, engine, threads):
    alone, shared = reader_of(engine), reader_of(engine)
    order = range(IMAGES)
    expected = [
        (batch, engine.compute(batch.inputs)) for batch in alone.read(split, order, digest=True)
    ]
    before = torch.get_num_threads()
    engine.network.forwards = 0
    try:
        torch.set_num_threads(threads)  # OpenVINO's streams are those compiled above
        streamed = list(stream_split(engine, shared, split, order, digest=True))
    finally:
        torch.set_num_threads(before)
    assert [len(batch) for batch, _ in streamed] == [4, 3, 4, 4, 3]
    for (one, own), (other, inputs) in zip(expected, streamed, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.indices, other.indices)
        assert one.digests == other.digests
        assert own.keys() == inputs.keys()
        assert all(torch.equal(own[path], inputs[path]) for path in own)
    assert list(alone.bad) == list(shared.bad) == [split.where(n) for n in (5, 12, 13, 14, 15)]
    assert engine.network.forwards == IMAGES - 5
    assert {name.rpartition("_")[0] for name in split.threads.values()} == {"zoo-read"}
    assert not running()


def test_bad_images_raise_after_all_batches(split, engine):
    yielded = []
    with pytest.raises(UnreadableImages, match="5 of 23"):
        yielded.extend(
            len(batch)
            for batch, _ in stream_split(engine, reader_of(engine, "error"), split, range(IMAGES))
        )
    assert not running()


def test_error_of_a_thread_that_reads_is_raised(split, engine):
    split.fails.append(17)
    streamed = stream_split(engine, reader_of(engine), split, range(IMAGES))
    assert [len(next(streamed)[0]) for _ in range(3)] == [4, 3, 4]
    with pytest.raises(IndexError, match="17"):
        next(streamed)
    assert not running()


def test_caller_that_stops_ends_the_threads(split, engine):
    streamed = stream_split(engine, reader_of(engine), split, range(IMAGES))
    next(streamed)
    assert running()
    streamed.close()
    assert not running()
    read = len(split.threads)
    assert read < IMAGES
