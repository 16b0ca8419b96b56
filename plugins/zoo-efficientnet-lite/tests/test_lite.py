import hashlib
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from PIL import Image
from timm.data import create_transform
from zoo_efficientnet_lite import plugin, weights
from zoo_efficientnet_lite.model import build

import zoo
import zoo.testing
from zoo.models.conversion import by_position

BACKBONES = {backbone.name: backbone for backbone in plugin.zoo_register_backbones()}

CATS = {"tabby", "tiger cat", "Egyptian cat"}


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> zoo.Backbone:
    return BACKBONES[request.param]


class TestLite0(zoo.testing.BackboneContract):
    backbone = "efficientnet_lite/lite0"


def installed(backbone: zoo.Backbone) -> Path:
    package, _, path = (backbone.weights[0].file or "").partition(":")
    return Path(str(files(package).joinpath(path)))


def test_entry_point_loads_plugin() -> None:
    [point] = entry_points(group="zoo", name="efficientnet_lite")
    assert point.load() is plugin


def test_description_matches_network_and_file(backbone: zoo.Backbone) -> None:
    digest = hashlib.sha256(installed(backbone).read_bytes()).hexdigest()
    assert digest == backbone.weights[0].sha256
    model = build(**backbone.kwargs)
    assert sum(parameter.numel() for parameter in model.parameters()) == backbone.params
    head = model.get_submodule(backbone.heads[0].module_path)
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == backbone.weights[0].num_classes


def test_preprocess_equals_timm_up_to_rounding(backbone: zoo.Backbone) -> None:
    cfg = timm.models.get_pretrained_cfg(f"tf_efficientnet_{backbone.name}")
    assert cfg is not None
    ours = backbone.preprocess
    assert (3, *ours.size) == cfg.input_size  # type: ignore[misc]
    assert ours.resize == int(ours.height / cfg.crop_pct)
    assert (ours.crop, ours.interpolation) == (cfg.crop_mode, cfg.interpolation)
    assert ours.mean + ours.std == pytest.approx(cfg.mean + cfg.std, abs=0.002)


@torch.no_grad()
def test_weights_classify_cat_and_coffee(backbone: zoo.Backbone) -> None:
    model = build(**backbone.kwargs)
    state = by_position(installed(backbone), backbone, backbone.weights[0])
    model.load_state_dict(state, strict=True)
    model.eval()
    # timm's transform, so that only network and weights are tested.
    transform = create_transform(**timm.data.resolve_data_config(model=model))
    photos = [Image.fromarray(array) for array in (skimage.data.chelsea(), skimage.data.coffee())]
    best = model(torch.stack([transform(photo) for photo in photos])).argmax(1).tolist()
    chelsea, coffee = (weights.imagenet_classes()[index] for index in best)
    assert chelsea == ("tiger cat" if backbone.name == "lite0" else "Egyptian cat")
    assert chelsea in CATS
    assert coffee == "espresso"


def test_convert_other_variant_raises_weights_error() -> None:
    one, two, zero = (installed(BACKBONES[name]) for name in ("lite1", "lite2", "lite0"))
    lite1 = BACKBONES["lite1"]
    with pytest.raises(zoo.WeightsError, match="has 296 tensors, lite1 has 386"):
        by_position(zero, lite1, lite1.weights[0])
    with pytest.raises(zoo.WeightsError, match=r"does not match .* of lite1"):
        by_position(two, lite1, lite1.weights[0])
    assert len(by_position(one, lite1, lite1.weights[0])) == 386


def test_convert_reordered_tensors_raises_weights_error(tmp_path: Path) -> None:
    lite0 = BACKBONES["lite0"]
    theirs = list(torch.load(installed(lite0), weights_only=True).items())
    # Weight and bias of one batch norm have equal shapes, and differ only in their names.
    theirs[1], theirs[2] = theirs[2], theirs[1]
    torch.save(dict(theirs), tmp_path / "shuffled.pth")
    with pytest.raises(zoo.WeightsError, match=r"shuffled\.pth: _bn0\.bias .* bn1\.weight"):
        by_position(tmp_path / "shuffled.pth", lite0, lite0.weights[0])


def test_imagenet_class_names_are_unique() -> None:
    names = weights.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[134], names[638], names[639]) == (
        "tench",
        "crane (n02012849)",
        "maillot (n03710637)",
        "maillot, tank suit",
    )
