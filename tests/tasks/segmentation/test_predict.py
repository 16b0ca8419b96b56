"""Predicted masks: resampling to image size, files and overlays."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.geometry import geometry_of
from zoo.data.transforms import prepare_mask
from zoo.spec import Preprocess
from zoo.tasks.base import Outputs, SourceImage
from zoo.tasks.segmentation import predict as module
from zoo.tasks.segmentation.predict import overlay, predict, resample
from zoo.tasks.segmentation.schema import SegmentationSchema

SCHEMA = SegmentationSchema(("sky", "road", "tree"), ("#000000", "#ff0000", "#00ff00"))


def halves(size: tuple[int, int]) -> np.ndarray:
    """Return a mask with an edge in x and one in y."""
    width, height = size
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, width // 2 :] = 1
    mask[height // 3 :, : width // 4] = 2
    return mask


def as_logits(mask: torch.Tensor) -> torch.Tensor:
    """Return logits `[3, height, width]` of a mask; wrong ones on padding."""
    logits = torch.stack([10.0 * (mask == index) for index in range(3)])
    logits[2, mask == 255] = 1000
    return logits


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(96, 72), (71, 133), (300, 40), (20, 30)])
@pytest.mark.parametrize("input_size", [64, (48, 80)])
def test_resample_inverts_preprocessing(crop, size, input_size):
    preprocess = Preprocess(input_size, crop=crop)
    mask = halves(size)
    geometry = geometry_of(size, preprocess)
    restored = resample(as_logits(prepare_mask(Image.fromarray(mask), preprocess, 255)), geometry)
    assert restored.shape == mask.shape
    (left, top, right, bottom), (width, height) = geometry.crop, geometry.scaled
    x = (np.arange(size[0]) + 0.5) * width / size[0]
    y = (np.arange(size[1]) + 0.5) * height / size[1]
    visible = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    assert ((restored == 255) == ~visible).all()
    # Edges may move by one pixel of the network's input.
    far = visible.copy()
    step = max(size[0] / width, size[1] / height)
    reach = int(np.ceil(step)) + 1
    for axis in (0, 1):
        for shift in range(-reach, reach + 1):
            far &= np.roll(mask, shift, axis) == mask
    assert (restored[far] == mask[far]).all()
    assert far.mean() > 0.1 or min(size) <= 40


def test_resample_is_independent_of_strip_size(monkeypatch):
    logits = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    geometry = geometry_of((200, 150), Preprocess(64, 64, crop="border"))
    whole = resample(logits, geometry)
    monkeypatch.setattr(module, "STRIP", 3 * 200 * 7)
    assert (resample(logits, geometry) == whole).all()


def source(path, size=(40, 30), image=None) -> SourceImage:
    shown = image or Image.new("RGB", size, (100, 100, 100))
    preprocess = Preprocess(32, 32, crop="border")
    return SourceImage(str(path), size, preprocess, lambda: shown)


def logits_of(mask: np.ndarray) -> torch.Tensor:
    preprocess = Preprocess(32, 32, crop="border")
    return as_logits(prepare_mask(Image.fromarray(mask), preprocess, 255))[None]


def test_predict_returns_fractions_and_writes_files(tmp_path):
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[:, 30:] = 1
    (tmp_path / "a.jpg").touch()
    (answer,) = predict(
        Outputs(logits_of(mask)), [source(tmp_path / "a.jpg")], SCHEMA, 5, tmp_path / "out"
    )
    assert answer["predictions"] == [
        {"class": "sky", "fraction": pytest.approx(0.75, abs=0.02)},
        {"class": "road", "fraction": pytest.approx(0.25, abs=0.02)},
    ]
    assert answer["mask"] == str(tmp_path / "out" / "a.png")
    with Image.open(answer["mask"]) as written:
        assert (written.mode, written.size) == ("P", (40, 30))
        assert written.getpalette()[:9] == [0, 0, 0, 255, 0, 0, 0, 255, 0]
        assert (np.asarray(written) == mask).mean() > 0.95
        indices = np.asarray(written)
    with Image.open(answer["overlay"]) as shown:
        colors = np.asarray(shown)
    # Black is transparent; red is blended half and half.
    assert (colors[indices == 0] == (100, 100, 100)).all()
    assert (colors[indices == 1] == (178, 50, 50)).all()
    (none,) = predict(Outputs(logits_of(mask)), [source(tmp_path / "a.jpg")], SCHEMA, 1, None)
    assert (len(none["predictions"]), none["mask"], none["overlay"]) == (1, None, None)


def test_predict_does_not_overwrite_other_images(tmp_path):
    mask = np.zeros((30, 40), dtype=np.uint8)
    for name in ("one/a.jpg", "two/a.jpg", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()

    def names(*paths) -> list[str]:
        outputs = Outputs(logits_of(mask).repeat(len(paths), 1, 1, 1))
        answers = predict(outputs, [source(path) for path in paths], SCHEMA, 5, tmp_path)
        return [answer["mask"].rpartition("/")[2] for answer in answers]

    assert names(tmp_path / "one/a.jpg", tmp_path / "two/a.jpg") == ["a-2.png", "a-3.png"]
    # The same images in another order reuse their files.
    assert names(tmp_path / "two/a.jpg", tmp_path / "one/a.jpg") == ["a-3.png", "a-2.png"]
    assert names("image", "image") == ["image.png", "image-2.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_overlay_leaves_ignored_pixels_unchanged():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    over = overlay(np.array([[255, 2]], dtype=np.uint8), image, SCHEMA)
    assert np.asarray(over).tolist() == [[[10, 20, 30], [5, 138, 15]]]
