"""`zoo.FeatureExtractor`: a picklable function from encoded images to features."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

import zoo
from tests.inference.shards import labelled
from tests.networks import train_probe
from tests.processes import forked
from zoo.inference import extractor as module

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def trained(tinynet, image_folder, tmp_path):
    return train_probe(tinynet, image_folder, tmp_path / "run")


@pytest.fixture
def images(image_folder):
    return [image for _, image, _ in labelled(image_folder)][:20]


@pytest.fixture
def expected(trained, images, tmp_path):
    """What `zoo embed` writes for the same images as files."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, image in enumerate(images):
        (flat / f"{index:02}.jpg").write_bytes(image)
    zoo.embed(trained, flat, tmp_path / "f.safetensors", device="cpu")
    return load_file(tmp_path / "f.safetensors")["features"].numpy()


def test_features_have_the_bytes_of_zoo_embed(trained, images, expected, monkeypatch):
    extractor = zoo.FeatureExtractor(trained, device="cpu")
    features = extractor(images)
    assert features.dtype == np.float32
    assert np.array_equal(features, expected)
    # A part of a batch is padded, so that its features are the same.
    assert np.array_equal(extractor(images[:3]), expected[:3])
    assert extractor(images[:0]).shape == (0, 16)
    assert (extractor.images, extractor.unreadable) == (23, 0)


def test_features_of_engine_have_the_bytes_of_zoo_embed(trained, images, expected, tmp_path):
    extractor = zoo.FeatureExtractor(trained, device="cpu", engine="openvino")
    unreadable = zoo.FeatureExtractor(trained, device="cpu", engine="openvino", bad_images="mask")
    assert np.isnan(unreadable([b"no image"])).all()
    zoo.embed(trained, tmp_path / "flat", tmp_path / "f.npy", device="cpu", engine="openvino")
    features = pickle.loads(pickle.dumps(extractor))(images)
    assert np.array_equal(features, np.load(tmp_path / "f.npy"))
    assert not np.array_equal(features, expected)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_extractor_is_pickled_as_settings_and_loads_once(trained, images, expected):
    extractor = zoo.FeatureExtractor(trained, device="cpu", batch_size=32)
    extractor(images[:2])
    data = pickle.dumps(extractor)
    assert len(data) < 1000
    loaded = dict(module._loaded)
    copy = pickle.loads(data)
    assert np.array_equal(copy(images), expected)
    assert module._loaded == loaded
    code = (
        "import pickle, sys, numpy\n"
        "extractor, images, expected = pickle.load(sys.stdin.buffer)\n"
        "assert numpy.array_equal(extractor(images), expected)\n"
    )
    content = pickle.dumps((extractor, images[:4], expected[:4]))
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_construction_does_not_load_the_network(trained):
    module._loaded.clear()
    zoo.FeatureExtractor(trained)
    assert not module._loaded


def test_mapping_has_features_in_place_of_images(trained, images, expected):
    extractor = zoo.FeatureExtractor(trained, device="cpu")
    batch = {"jpg": np.array(images, dtype=object), "__key__": np.arange(20)}
    found = extractor(batch)
    assert set(found) == {"__key__", "features"}
    assert np.array_equal(found["features"], expected)
    both = {**batch, "cls": np.array([b"1"] * 20, dtype=object)}
    with pytest.raises(zoo.UsageError, match="the columns jpg, cls of a batch contain bytes"):
        extractor(both)
    named = zoo.FeatureExtractor(trained, device="cpu", column="jpg")
    assert np.array_equal(named(both)["features"], expected)
    with pytest.raises(zoo.UsageError, match="no column of a batch contains bytes"):
        extractor({"__key__": np.arange(2)})
    with pytest.raises(zoo.UsageError, match="a batch has no column 'jpg'"):
        named({"png": images})


def test_data_frame_has_features_in_place_of_images(trained, images, expected):
    pandas = pytest.importorskip("pandas")
    extractor = zoo.FeatureExtractor(trained, device="cpu")
    found = extractor(pandas.DataFrame({"path": list("ab"), "content": images[:2]}))
    assert list(found.columns) == ["path", "features"]
    assert np.array_equal(np.array(found["features"].tolist(), np.float32), expected[:2])


def test_unreadable_images_are_errors_or_masked(trained, images, expected):
    batch = [images[0], b"no image", images[2], None]
    with pytest.raises(zoo.DataError, match="2 of 4 images cannot be read") as caught:
        zoo.FeatureExtractor(trained, device="cpu")(batch)
    assert "image 1 of the batch" in str(caught.value)
    assert "bad_images='mask'" in str(caught.value)
    masking = zoo.FeatureExtractor(trained, device="cpu", bad_images="mask")
    found = masking({"image": batch})
    assert found["readable"].tolist() == [True, False, True, False]
    assert np.array_equal(found["features"][[0, 2]], expected[[0, 2]])
    assert np.isnan(found["features"][[1, 3]]).all()
    assert (masking.images, masking.unreadable) == (4, 2)
    module._loaded.clear()
    assert np.isnan(masking([b"no image"])).all()


def test_invalid_arguments_are_refused_before_workers_start():
    with pytest.raises(zoo.UnknownBackbone):
        zoo.FeatureExtractor("resnet18x")
    with pytest.raises(zoo.UsageError, match="bad_images is 'skip'"):
        zoo.FeatureExtractor("resnet18", bad_images="skip")
    with pytest.raises(zoo.UsageError, match="batch_size"):
        zoo.FeatureExtractor("resnet18", batch_size=0)


def test_other_values_than_bytes_are_refused_even_where_images_are_masked(trained, images):
    extractor = zoo.FeatureExtractor(trained, device="cpu", bad_images="mask")
    for value in (np.zeros((8, 8, 3), np.uint8), "cat.jpg", 3, 0.5):
        with pytest.raises(zoo.UsageError, match=r"image 1 of the batch is a .*, not bytes"):
            extractor([images[0], value])
    for batch in (None, 3, b"image"):
        with pytest.raises(zoo.UsageError, match="a batch is a list of the bytes of images"):
            extractor(batch)
    for name in ("features", "readable"):
        with pytest.raises(zoo.UsageError, match=f"has the column {name} already"):
            extractor({"image": images[:1], name: [1]})
    columns = extractor({"image": [None, images[0], math.nan]})
    assert columns["readable"].tolist() == [False, True, False]


def answer(extractors, images, answers):
    for extractor in extractors:
        try:
            answers.put(extractor(images).tobytes())
        except zoo.EnvironmentProblem as error:
            answers.put(str(error))


def test_forked_worker_loads_its_own_network(trained, images, expected):
    pytest.importorskip("openvino")
    by_torch = zoo.FeatureExtractor(trained, device="cpu", engine="torch")
    by_openvino = zoo.FeatureExtractor(trained, device="cpu", engine="openvino")
    by_openvino(images)
    extractors = (by_openvino, by_torch)
    # The lock is of another thread, as far as the new process knows.
    with module._loading, forked(answer, extractors, images) as answers:
        assert "forked from one that used OpenVINO" in answers.get()
        assert answers.get() == expected.tobytes()
