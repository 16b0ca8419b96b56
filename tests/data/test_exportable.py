"""Preprocessing as tensor operations, compared with that of images."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.exportable import ExportablePreprocess, place
from zoo.data.geometry import geometry_of
from zoo.data.transforms import normalize, prepare
from zoo.spec import CROPS, INTERPOLATIONS, Preprocess

# Height and width: landscape, portrait of either order of passes, tiny, narrow.
SIZES = ((60, 80), (155, 66), (97, 90), (9, 13), (200, 41))
INPUTS = (Preprocess(32), Preprocess((24, 40)), Preprocess(48, resize=40))


def image_of(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(height).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_exportable_preprocess_equals_that_of_images(crop, interpolation):
    shares = []
    for given, (height, width) in itertools.product(INPUTS, SIZES):
        preprocess = Preprocess(given.size, given.resize, crop, interpolation)
        image = image_of(height, width)
        pixels = prepare(image, preprocess)
        expected = normalize(pixels[None], preprocess)
        found, _ = ExportablePreprocess(preprocess)(torch.from_numpy(np.array(image))[None])
        assert found.shape == expected.shape
        levels = (found - expected).abs() * torch.tensor(preprocess.std).view(-1, 1, 1) * 255
        shares.append(float((levels > 0.5).float().mean()))
        if interpolation != "nearest":
            # torch's own kernels for bytes are within one level of exact ones in each pass.
            assert levels.max() < 2.5
            assert shares[-1] < 0.05
    # The nearest of two that are equally near is either, where Pillow adds up its steps.
    assert sum(shares) / len(shares) < (0.1 if interpolation == "nearest" else 0.02)


@pytest.mark.parametrize("crop", CROPS)
def test_placement_equals_the_geometry(crop):
    sides = (1, 2, 31, 224, 333, 1000, 4032)
    for size, resize in (((224, 224), None), ((160, 240), None), ((64, 64), 48)):
        preprocess = Preprocess(size, resize, crop)
        for height, width in itertools.product(sides, sides):
            geometry = geometry_of((width, height), preprocess)
            down, across = place(height, width, preprocess)
            assert (int(across.scaled), int(down.scaled)) == geometry.scaled
            assert (int(across.first), int(down.first)) == geometry.crop[:2]
            assert (int(across.cut), int(down.cut)) == geometry.cut
            assert (int(across.offset), int(down.offset)) == geometry.offset


def test_exportable_preprocess_reads_grey_and_ranges():
    ranges = (("uint8", 16, 235),)
    preprocess = Preprocess(32, mean=(0.5,), std=(0.25,), crop="border", ranges=ranges)
    image = image_of(60, 80)
    found, _ = ExportablePreprocess(preprocess)(torch.from_numpy(np.array(image))[None])
    read = zoo.data.decode.decode(image, ranges)
    expected = normalize(prepare(read, preprocess)[None], preprocess)
    assert ((found - expected).abs() * 0.25 * 255).max() < 1.5
    plain, _ = ExportablePreprocess(Preprocess(32, mean=(0.5,), std=(0.25,), crop="border"))(
        torch.from_numpy(np.array(image))[None]
    )
    assert (found - plain).abs().max() > 0.1
    with pytest.raises(zoo.UsageError, match="takes images of 4 channels"):
        ExportablePreprocess(Preprocess(32, mean=(0.5,) * 4, std=(0.5,) * 4))


@pytest.mark.slow  # converts a graph, in seconds
def test_preprocess_in_bfloat16_differs_by_few_levels():
    openvino = pytest.importorskip("openvino")
    statistics = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    preprocess = Preprocess(224, 256, interpolation="bicubic", **statistics)
    module = ExportablePreprocess(preprocess, branching=False).eval()

    class Pixels(torch.nn.Module):
        def forward(self, images):
            return module(images)[0]

    sizes = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    example = torch.zeros(1, 300, 400, 3, dtype=torch.uint8)
    program = torch.export.export(Pixels(), (example,), dynamic_shapes=(sizes,), strict=False)
    settings = {"INFERENCE_PRECISION_HINT": "bf16"}
    compiled = openvino.Core().compile_model(openvino.convert_model(program), "CPU", settings)
    for shape in ((700, 500), (120, 160), (300, 1200)):
        image = np.array(image_of(*shape))
        expected = module(torch.from_numpy(image)[None])[0].numpy()
        levels = 255 * np.abs(compiled([image[None]])[0] - expected)
        assert levels.mean() < 1
        assert levels.max() < 5
