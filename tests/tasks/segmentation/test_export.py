"""Masks of an exported network, compared with those of `zoo predict`."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import zoo
from tests.tasks.segmentation.scenes import SHAPES
from zoo.data.exportable import place
from zoo.data.geometry import geometry_of
from zoo.modelfile import read_model, write_model
from zoo.spec import CROPS, Preprocess
from zoo.tasks.segmentation.exports import masks
from zoo.tasks.segmentation.predict import resample
from zoo.tasks.segmentation.schema import SegmentationSchema


@pytest.mark.parametrize("crop", CROPS)
def test_exported_masks_equal_resampled_ones(crop):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 5, 9, 11, generator=generator)
    for size, resize in (((48, 48), None), ((40, 64), 56), ((48, 48), 30)):
        preprocess = Preprocess(size, resize, crop)
        logits = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
        for height, width in ((72, 96), (150, 61), (30, 30)):
            expected = resample(logits[0], geometry_of((width, height), preprocess))
            (found,) = masks(logits, place(height, width, preprocess)).numpy()
            assert found.shape == expected.shape
            assert (found == 255).sum() == (expected == 255).sum()
            assert (found == expected).mean() > 0.999


@pytest.mark.slow  # converts a network, in seconds
def test_onnx_file_returns_masks_of_images(tinyfcn, scenes, tmp_path):
    module = zoo.get(tinyfcn).build(classes=len(SHAPES), weights=None)
    torch.manual_seed(0)
    path = tmp_path / "seg.safetensors"
    zoo.save(module, path, SegmentationSchema(tuple(SHAPES)))
    card, content = read_model(path)
    write_model(path, content.tensors, replace(card, preprocess=zoo.Preprocess(64, crop="border")))
    result = zoo.export(path)
    assert (result["outputs"], result["any_batch"]) == (["mask"], True)
    assert result["agreement"]["decision"] == "pixels"
    assert result["agreement"]["equal_decisions"] > 0.99
    session = onnxruntime.InferenceSession(result["path"])
    files = sorted((scenes / "images").iterdir())[:2]
    images = np.stack([np.array(Image.open(file).convert("RGB")) for file in files])
    (found,) = session.run(None, {"images": images})
    assert (found.shape, found.dtype) == (images.shape[:3], np.uint8)
    answers = zoo.predict(path, [*images], device="cpu", precision="fp32", out=tmp_path / "masks")
    for mask, answer in zip(found, answers, strict=True):
        expected = np.array(Image.open(answer["mask"]))
        assert (mask == expected).mean() > 0.99
