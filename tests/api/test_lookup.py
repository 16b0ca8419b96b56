"""Looking up backbones from Python."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torchvision
from torch import nn
from torchvision.models import ResNet50_Weights

import zoo


def test_several_patterns_list_what_matches_any():
    names = [b.id for b in zoo.list_backbones("resnet18", "vgg11", source="torchvision")]
    assert names == ["torchvision/resnet18", "torchvision/vgg11"]
    assert names == [b.id for b in zoo.list_backbones(["resnet18", "vgg11"], source="torchvision")]
    assert len(zoo.list_backbones([])) == len(zoo.list_backbones(None)) > 1000


def test_backbone_is_taken_wherever_its_name_is(tinynet, image_folder, tmp_path):
    backbone, lite0 = zoo.get(tinynet), zoo.get("lite0")
    assert zoo.get(backbone) is backbone
    image = next((image_folder / "val" / "flag").iterdir())
    path = zoo.save(backbone.build(classes=2), tmp_path / "own.safetensors", ["oak", "ash"])
    named = zoo.predict(tinynet, image, weights=path)
    assert zoo.predict(backbone, image, weights=str(path)) == named
    assert {each["class"] for each in named[0]["predictions"]} == {"oak", "ash"}
    assert zoo.load(backbone, weights=path).predict(image) == named
    assert zoo.features(lite0, image).equal(zoo.features("lite0", image))
    given = {"data": image_folder, "weights": "none", "device": "cpu"}
    assert zoo.plan(backbone, **given).to_dict() == zoo.plan(tinynet, **given).to_dict()
    assert zoo.load(lite0).classes == zoo.load("lite0").classes
    assert zoo.FeatureExtractor(lite0).name == lite0.id
    weights = ResNet50_Weights.IMAGENET1K_V1
    assert zoo.FeatureExtractor(weights).name == "torchvision/resnet50.IMAGENET1K_V1"
    assert zoo.transform(weights) == zoo.transform("torchvision/resnet50.IMAGENET1K_V1")
    assert len(zoo.freeze(torchvision.models.resnet50(), weights)) == 2


def test_run_is_a_path_wherever_one_is_expected(tinynet, image_folder, tmp_path):
    given = {"data": image_folder, "weights": "none", "epochs": 1, "device": "cpu"}
    run = zoo.finetune(tinynet, out=tmp_path / "run", **given)
    assert "metrics" not in repr(run)
    image = next((image_folder / "val" / "flag").iterdir())
    assert zoo.predict(run, image) == zoo.load(run).predict(image) == zoo.predict(run.path, image)
    assert zoo.features(run, image).equal(zoo.features(run.path, image))
    assert zoo.transform(run) == zoo.transform(zoo.load(run)) == zoo.transform(str(run.path))
    assert zoo.register_model("mine", run).path == str(run.path / "model.safetensors")
    assert zoo.report(run, out=tmp_path / "r.html").exists()


@pytest.mark.parametrize("given", [None, 3, b"lite0", nn.Identity()])
def test_what_is_no_name_is_refused(given):
    for function in (zoo.load, zoo.export, zoo.FeatureExtractor, zoo.report):
        with pytest.raises(zoo.UsageError, match=f"a {type(given).__name__} is no"):
            function(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern": 3}, "3 is a int, not text"),
        ({"pattern": ["vgg*", ["resnet*"]]}, "is a list, not text"),
        ({"license": 3}, "3 is a int"),
        ({"pretrained": "yes"}, "pretrained is 'yes'; give True"),
    ],
)
def test_filters_of_other_types_are_refused(given, message):
    with pytest.raises(zoo.UsageError, match=message):
        zoo.list_backbones(**given)


def test_weights_of_torchvision_name_their_backbone():
    backbone = zoo.get(ResNet50_Weights.IMAGENET1K_V1)
    assert (backbone.id, backbone.weights[0].tag) == ("torchvision/resnet50", "IMAGENET1K_V1")


def test_changed_backbone_is_refused_by_name(tinynet, image_folder):
    changed = replace(zoo.get(tinynet), min_size=1)
    with pytest.raises(zoo.UsageError, match=r"differs from the registered .* zoo\.register"):
        zoo.plan(changed, data=image_folder)


def test_looking_up_and_registering_imports_no_torch():
    program = """
import sys, zoo

def build(weights=None): ...

zoo.configure(without=["timm"])
zoo.list_backbones("resnet*", "vgg*"), zoo.list_plugins(), zoo.list_cache()
zoo.register(zoo.Backbone("leafnet", "__main__:build", (zoo.Head("fc"),), zoo.Preprocess(32)))
heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "click"} & set(sys.modules)
print(zoo.get("leafnet").id, sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["local/leafnet", "[]"], done.stderr
