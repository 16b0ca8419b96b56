import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ConvNeXt_Tiny_Weights, EfficientNet_B0_Weights, ResNet18_Weights

from zoo.data.decode import decode, decode_reduced
from zoo.data.transforms import at_least, denormalize, normalize, prepare, prepare_source
from zoo.errors import DataError
from zoo.spec import Preprocess
from zoo.tasks.classification.data.sources import open_data

# The same steps in the same order, and within two levels of 255 of Pillow's resize.
LEVELS = 2


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    photo = Image.fromarray(skimage.data.chelsea())
    val = open_data(None).splits["val"]
    clipart = [Image.open(val.path(i)).convert("RGB") for i in (0, 40, 90)]
    odd = photo.resize((301, 97))
    return [photo, photo.transpose(Image.Transpose.ROTATE_90), odd, *clipart]


def seen(image: Image.Image, preprocess: Preprocess) -> Tensor:
    pixels = prepare(image, preprocess)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, preprocess.height, preprocess.width)
    return normalize(pixels[None], preprocess)[0]


def assert_agrees(image: Image.Image, preprocess: Preprocess, published: Tensor) -> None:
    std = torch.tensor(preprocess.std).view(-1, 1, 1)
    levels = (seen(image, preprocess) - published).mul(255 * std).abs().max()
    exact = preprocess.interpolation in ("nearest", "lanczos")
    assert levels < (0 if exact else LEVELS) + 1e-3


@pytest.mark.parametrize(
    ("weights", "preprocess"),
    [
        (ResNet18_Weights.DEFAULT, Preprocess(224, resize=256)),
        (EfficientNet_B0_Weights.DEFAULT, Preprocess(224, resize=256, interpolation="bicubic")),
        (ConvNeXt_Tiny_Weights.DEFAULT, Preprocess(224, resize=236)),
    ],
)
def test_prepare_matches_torchvision_presets(
    weights: Any, preprocess: Preprocess, images: list[Image.Image]
) -> None:
    published: Callable[[Image.Image], Tensor] = weights.transforms()
    for image in images:
        assert_agrees(image, preprocess, published(image))


@pytest.mark.parametrize(
    ("name", "crop", "crop_pct"),
    [
        ("resnet50.a1_in1k", "center", 0.95),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "center", 0.9),
        ("volo_d5_512.sail_in1k", "center", 1.15),
        ("eva_giant_patch14_336.clip_ft_in1k", "squash", 1.0),
        ("dm_nfnet_f0.dm_in1k", "squash", 0.9),
        ("vit_base_patch16_sapiens2.fb", "squash", 1.0),
        ("deepseek_vit_412m.deepseek_v4_flash_vision_exp", "border", 1.0),
    ],
)
def test_prepare_matches_timm_evaluation(
    name: str, crop: str, crop_pct: float, images: list[Image.Image]
) -> None:
    if name not in timm.list_pretrained():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    published = timm.data.create_transform(**config, is_training=False)
    assert (config["crop_mode"], config["crop_pct"]) == (crop, crop_pct)
    height, width = config["input_size"][1:]
    preprocess = Preprocess(
        size=(height, width),
        resize=math.floor(min(height, width) / config["crop_pct"]),
        crop=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
    )
    for image in images:
        assert_agrees(image, preprocess, published(image))


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_prepare_matches_timm_at_non_square_size(
    crop: str, interpolation: str, images: list[Image.Image]
) -> None:
    published = timm.data.create_transform(
        (3, 160, 240), crop_pct=0.8, crop_mode=crop, interpolation=interpolation
    )
    if crop == "center":
        # Before 1.0.31, timm ignores the interpolation of a centre crop that is not square.
        resize = timm.data.transforms.ResizeKeepRatio((200, 300), interpolation=interpolation)
        published.transforms[0] = resize
    preprocess = Preprocess((160, 240), resize=200, crop=crop, interpolation=interpolation)
    for image in images:
        assert_agrees(image, preprocess, published(image))


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 32), (500, 3)])
def test_prepare_any_aspect_ratio_returns_size(crop: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess((24, 32), resize=28, crop=crop)
    assert prepare(Image.new("RGB", size), preprocess).shape == (3, 24, 32)


def test_prepare_rejects_too_narrow_image() -> None:
    with pytest.raises(DataError, match="10000 x 1 pixels are too narrow"):
        prepare(Image.new("RGB", (10_000, 1)), Preprocess(224))


def test_normalize_preserves_memory_format(images: list[Image.Image]) -> None:
    preprocess = Preprocess(64)
    batch = torch.stack([prepare(image, preprocess) for image in images])
    last = batch.contiguous(memory_format=torch.channels_last)
    result = normalize(last, preprocess)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, normalize(batch, preprocess))


def test_normalize_rounds_half_precision_once(images: list[Image.Image]) -> None:
    preprocess = Preprocess(64)
    batch = prepare(images[0], preprocess)[None]
    half = normalize(batch, preprocess, torch.bfloat16)
    assert torch.equal(half, normalize(batch, preprocess).to(torch.bfloat16))
    assert batch.dtype == torch.uint8


def test_normalize_returns_new_tensor() -> None:
    preprocess = Preprocess(8)
    batch = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    first = normalize(batch, preprocess)
    expected = first.clone()
    first.zero_()
    assert torch.equal(normalize(batch, preprocess), expected)


def test_denormalize_inverts_normalize():
    preprocess = Preprocess(size=16)
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    assert torch.equal(denormalize(normalize(pixels, preprocess), preprocess), pixels)
    assert denormalize(pixels, preprocess) is pixels
    odd = torch.tensor([-1e9, 1e9, math.inf, math.nan]).repeat(1, 3, 1, 1)
    assert denormalize(odd, preprocess)[0, :, 0].tolist() == [[0, 255, 255, 0]] * 3


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(1411, 1411), (1395, 1001)])
def test_prepare_reduced_jpeg_matches_full_resolution(
    crop: str, interpolation: str, size: tuple[int, int]
) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(skimage.data.retina()).resize(size).save(jpeg, "JPEG", quality=90)
    preprocess = Preprocess((96, 128), resize=110, crop=crop, interpolation=interpolation)
    whole = prepare(decode(jpeg), preprocess).int()
    decoded = decode_reduced(jpeg, at_least(preprocess))
    assert decoded.pixels.size != decoded.size
    reduced = prepare_source(jpeg, preprocess).int()
    assert 0 < (whole - reduced).abs().float().mean() < 0.5
    assert (whole - reduced).abs().max() <= 16


def test_prepare_reduced_crop_is_rounded_as_full() -> None:
    # At 341 of 342 columns and more, a column too far shows at once.
    stripes = np.zeros((1537, 2049, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1020:1030] = 40, 255
    jpeg = io.BytesIO()
    Image.fromarray(stripes).save(jpeg, "JPEG", quality=95)
    preprocess = Preprocess(224, resize=256)
    pair = prepare(decode(jpeg), preprocess), prepare_source(jpeg, preprocess)
    brightest = [pixels.float().mean(dim=(0, 1)).argmax().item() for pixels in pair]
    assert brightest[0] == brightest[1]


def test_at_least_nearest_needs_full_resolution() -> None:
    assert at_least(Preprocess(32, interpolation="nearest")) is None
    assert at_least(Preprocess(32, resize=40)) == (120, 120)
    assert at_least(Preprocess((32, 64), resize=40)) == (240, 120)
