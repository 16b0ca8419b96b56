"""Descriptions: what they accept, refuse, and carry through JSON."""

import json

import pytest

import zoo
from zoo import spec


def leafnet(**changes):
    values = {
        "name": "leafnet",
        "builder": "leafnet.model:build",
        "heads": (zoo.Head("classifier[6]"),),
        "preprocess": zoo.Preprocess(size=224),
        "weights": (
            zoo.Weights("plantnet", file="leafnet:w.safetensors", license="MIT", num_classes=3),
            zoo.Weights("next", url="http://x.example/leafnet-0123abcd.pth", kwargs={"wide": True}),
        ),
    }
    return zoo.Backbone(**{**values, **changes})


@pytest.mark.parametrize("path", ["fc", "classifier[6]", "classifier.6", "AuxLogits.fc"])
def test_head_path_forms(path):
    assert zoo.Head(path).module_path == path.replace("[", ".").replace("]", "")


@pytest.mark.parametrize("path", ["", "fc.", "classifier[x]", "a b", "[0]", "fc..x"])
def test_head_path_malformed(path):
    with pytest.raises(zoo.UsageError, match="not a module path"):
        zoo.Head(path)


def test_unknown_role_names_the_nearest():
    with pytest.raises(zoo.UsageError, match="did you mean aux"):
        zoo.Head("fc", role="auxx")


def test_preprocess_defaults_to_imagenet_evaluation():
    preprocess = zoo.Preprocess(size=224)
    assert (preprocess.size, preprocess.resize) == ((224, 224), 256)
    assert zoo.Preprocess(size=(1024, 768)).height == 1024


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": 9, "crop": "centre"}, {"size": 9, "std": (0,)}]
)
def test_preprocess_refuses(wrong):
    with pytest.raises(zoo.UsageError):
        zoo.Preprocess(**wrong)


def test_weights_need_one_place():
    with pytest.raises(zoo.UsageError, match="exactly one"):
        zoo.Weights("a")
    with pytest.raises(zoo.UsageError, match="exactly one"):
        zoo.Weights("a", file="a:b", url="http://a.example/b")
    with pytest.raises(zoo.UsageError, match="are taken"):
        zoo.Weights("auto", file="a:b")


def test_digest_is_read_from_the_name():
    assert leafnet().weights[1].digest == "0123abcd"
    assert leafnet().weights[0].digest is None
    assert zoo.Weights("a", file="a:b", sha256="AB").digest == "ab"


def test_backbone_goes_through_json_unchanged():
    backbone = leafnet(min_size=32, fixed_size=True, kwargs={"depth": 3})
    text = json.dumps(spec.to_dict(backbone))
    assert spec.backbone_from_dict(json.loads(text)) == backbone


def test_backbone_refuses_what_makes_no_sense():
    with pytest.raises(zoo.UsageError, match="names no head"):
        leafnet(heads=())
    assert leafnet(heads=(), refuse="it is an encoder").refuse
    with pytest.raises(zoo.UsageError, match="two weights of one tag"):
        leafnet(weights=(zoo.Weights("a", file="a:b"), zoo.Weights("a", file="a:c")))
    with pytest.raises(zoo.UsageError, match="not a backbone name"):
        leafnet(name="a/b")


def test_unknown_tag_names_the_nearest():
    with pytest.raises(zoo.UsageError, match="did you mean plantnet"):
        leafnet().find_weights("plantnt")


def test_licence_comes_from_the_default_weights():
    assert leafnet().license == "MIT"


def test_targets_that_cannot_be_imported_say_so():
    with pytest.raises(zoo.BrokenPlugin, match="cannot be imported"):
        spec.resolve_target("zoo.nowhere:build")
    with pytest.raises(zoo.BrokenPlugin, match="write it as"):
        spec.resolve_target("zoo.spec")
