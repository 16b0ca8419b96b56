"""`--crop` and `--interpolation`: in training, in the model file, and after it."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.modelfile import read_model
from zoo.models.build_options import BuildOptions

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "recipe": "probe"}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    """Images of 128 x 32 pixels, whose class is the colour of their left edge."""
    root, generator = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for name, channel in (("red", 0), ("blue", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 128, 3), dtype=np.uint8)
                pixels[:, :24] = 0
                pixels[:, :24, channel] = 255
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize("crop", ["squash", "border"])
def test_crop_replaces_that_of_the_backbone(crop):
    own = zoo.Preprocess(size=224, resize=256, interpolation="bicubic", mean=(0.1, 0.2, 0.3))
    changed = BuildOptions(crop=crop).preprocess(own)
    assert changed == zoo.Preprocess(
        size=224, crop=crop, interpolation="bicubic", mean=(0.1, 0.2, 0.3)
    )
    smaller = BuildOptions(input_size=112, crop=crop).preprocess(own)
    assert (smaller.size, smaller.resize, smaller.crop) == ((112, 112), 112, crop)
    assert BuildOptions(resize=224).preprocess(own).resize == 224
    assert BuildOptions(input_size=112, resize=120).preprocess(own).resize == 120
    assert BuildOptions(crop="center", interpolation="nearest").preprocess(own) == zoo.Preprocess(
        size=224, resize=256, interpolation="nearest", mean=(0.1, 0.2, 0.3)
    )


def test_crop_of_whole_images_learns_what_center_cuts_away(tinynet, wide_folder):
    center = zoo.finetune(tinynet, data=wide_folder, **QUICK)
    squash = zoo.finetune(tinynet, data=wide_folder, crop="squash", **QUICK)
    assert center.metrics["val"]["top1"] < 0.9
    assert squash.metrics["val"]["top1"] == 1.0
    card, _ = read_model(squash.path / "model.safetensors")
    assert (card.preprocess.crop, card.preprocess.resize) == ("squash", 32)
    # Evaluation and prediction use the preprocess of the model file.
    evaluated = zoo.evaluate(squash.path, wide_folder, device="cpu", split="val")
    assert evaluated["loss"] == pytest.approx(squash.metrics["val"]["loss"], rel=1e-4)
    (answer,) = zoo.predict(squash.path, wide_folder / "val/red/0.png", device="cpu")
    assert answer["predictions"][0]["class"] == "red"


def test_wide_images_are_noticed_unless_crop_is_given(cli, tinynet, wide_folder):
    options = (
        *("finetune", tinynet, "--data", wide_folder, "--weights", "none", "--dry-run", "--json"),
        *("--interpolation", "nearest", "--resize", "32"),
    )
    code, out, err = cli(*options)
    assert code == 0
    assert "the center crop cuts away 75 % of the area of most images; --crop squash" in err
    plan = json.loads(out)
    assert plan["preprocess"]["interpolation"] == "nearest"
    assert plan["preprocess"]["resize"] == 32
    assert "--resize 32, --interpolation nearest" in plan["reasons"]["preprocess"]
    for crop in ("border", "center"):
        code, out, err = cli(*options, "--crop", crop)
        assert (code, json.loads(out)["preprocess"]["crop"]) == (0, crop)
        assert "cuts away" not in err
    code, _, err = cli(*options, "--crop", "centre")
    assert code == 2
    assert "--crop 'centre' is unknown" in err
    assert "did you mean center?" in err
