"""Descriptions: validation, immutability, and their round trip through JSON."""

import copy
import dataclasses
import json
import pickle
import re
import sys

import pytest

import zoo
from zoo import spec
from zoo.records import to_dict
from zoo.registry.catalogue import restore_backbone


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


def test_head_unknown_role_suggests_nearest():
    with pytest.raises(zoo.UsageError, match="did you mean aux"):
        zoo.Head("fc", role="auxx")


def test_preprocess_defaults_to_imagenet_evaluation():
    preprocess = zoo.Preprocess(size=224)
    assert (preprocess.size, preprocess.resize) == ((224, 224), 256)
    assert zoo.Preprocess(size=(1024, 768)).height == 1024


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 9, "crop": "centre"},
        {"size": 9, "std": (0,)},
        {"size": 9, "mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
    ],
)
def test_preprocess_invalid_field_is_refused(wrong):
    with pytest.raises(zoo.UsageError):
        zoo.Preprocess(**wrong)


def test_weights_need_exactly_one_location():
    with pytest.raises(zoo.UsageError, match="exactly one"):
        zoo.Weights("a")
    with pytest.raises(zoo.UsageError, match="exactly one"):
        zoo.Weights("a", file="a:b", url="http://a.example/b")
    with pytest.raises(zoo.UsageError, match="are taken"):
        zoo.Weights("auto", file="a:b")


def test_digest_from_file_name():
    assert leafnet().weights[1].digest == "0123abcd"
    assert leafnet().weights[0].digest is None
    assert zoo.Weights("a", file="a:b", sha256="AB").digest == "ab"


def test_backbone_round_trip_through_json():
    backbone = leafnet(min_size=32, fixed_size=True, kwargs={"depth": 3})
    text = json.dumps(to_dict(backbone))
    assert restore_backbone(json.loads(text)) == backbone


def test_backbone_invalid_combination_is_refused():
    with pytest.raises(zoo.UsageError, match="names no head"):
        leafnet(heads=())
    assert leafnet(heads=(), refuse="it is an encoder").refuse
    with pytest.raises(zoo.UsageError, match="list the main head first"):
        leafnet(heads=(zoo.Head("aux", role="aux"), zoo.Head("fc")))
    with pytest.raises(zoo.UsageError, match="two weights of one tag"):
        leafnet(weights=(zoo.Weights("a", file="a:b"), zoo.Weights("a", file="a:c")))
    with pytest.raises(zoo.UsageError, match="not a backbone name"):
        leafnet(name="a/b")


def test_find_weights_unknown_tag_suggests_nearest():
    with pytest.raises(zoo.UsageError, match="did you mean plantnet"):
        leafnet().find_weights("plantnt")


def test_backbone_license_defaults_to_that_of_weights():
    assert leafnet().license == "MIT"


@pytest.mark.parametrize(
    ("of_backbone", "of_default", "expected"),
    [("MIT", None, "MIT"), ("MIT", "GPL-3.0", "GPL-3.0"), (None, None, None), (None, "MIT", "MIT")],
)
def test_backbone_and_default_weights_share_license(of_backbone, of_default, expected):
    weights = (
        zoo.Weights("a", url="https://a.b/c", license=of_default),
        zoo.Weights("b", url="https://a.b/d"),
    )
    backbone = zoo.Backbone(
        "net", "a:b", (zoo.Head("fc"),), zoo.Preprocess(8), weights=weights, license=of_backbone
    )
    assert (backbone.license, backbone.weights[0].license) == (expected, expected)
    assert backbone.weights[1].license is None


def test_resolve_target_invalid_string_raises_broken_plugin():
    with pytest.raises(zoo.BrokenPlugin, match=r"cannot be imported: ModuleNotFound.*PYTHONPATH"):
        spec.resolve_target("zoo.nowhere:build")
    with pytest.raises(zoo.BrokenPlugin, match="write it as"):
        spec.resolve_target("zoo.spec")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(:", "SyntaxError: "),
        ("raise RuntimeError('no\\nleaf')", "RuntimeError: no leaf"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_resolve_target_failing_import_raises_broken_plugin(tmp_path, monkeypatch, source, message):
    (tmp_path / "plugin_broken.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(zoo.BrokenPlugin, match=f"cannot be imported: {message}"):
        spec.resolve_target("plugin_broken:build")


def test_resolve_target_propagates_keyboard_interrupt(tmp_path, monkeypatch):
    (tmp_path / "plugin_slow.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        spec.resolve_target("plugin_slow:build")
    assert "plugin_slow" not in sys.modules


@pytest.mark.parametrize(
    "junk",
    [
        {"name": 5},
        {"builder": None},
        {"heads": ("fc",)},
        {"heads": "fc"},
        {"heads": zoo.Head("fc")},
        {"preprocess": "224"},
        {"weights": ("x",)},
        {"kwargs": [1]},
        {"kwargs": {"a": {1, 2}}},
        {"kwargs": {"a": [float("nan")]}},
        {"kwargs": {1: 2}},
        {"params": "5M"},
        {"params": True},
        {"license": 5},
        {"fixed_size": "no"},
        {"refuse": 0},
        {"task": None},
    ],
    ids=str,
)
def test_backbone_field_of_wrong_type_is_refused(junk):
    with pytest.raises(zoo.UsageError, match=f"{next(iter(junk))} must be"):
        leafnet(**junk)


@pytest.mark.parametrize(
    ("kind", "junk"),
    [
        (zoo.Head, {"path": 5}),
        (zoo.Head, {"path": "fc", "role": []}),
        (zoo.Head, {"path": "fc", "loss_weight": "1"}),
        (zoo.Head, {"path": "fc", "loss_weight": float("inf")}),
        (zoo.Head, {"path": "fc", "output": 1.5}),
        (zoo.Preprocess, {"size": "224"}),
        (zoo.Preprocess, {"size": 224.0}),
        (zoo.Preprocess, {"size": (224, "x")}),
        (zoo.Preprocess, {"size": 224, "resize": "x"}),
        (zoo.Preprocess, {"size": 224, "mean": 0.5}),
        (zoo.Preprocess, {"size": 224, "std": ("a",)}),
        (zoo.Preprocess, {"size": 224, "mean": (), "std": ()}),
        (zoo.Weights, {"tag": 5, "file": "a:b"}),
        (zoo.Weights, {"tag": "a", "file": 5}),
        (zoo.Weights, {"tag": "a", "file": "a:b", "preprocess": 224}),
        (zoo.Weights, {"tag": "a", "file": "a:b", "classes": (1, 2)}),
        (zoo.Weights, {"tag": "a", "file": "a:b", "metrics": {"top1": "high"}}),
        (zoo.Weights, {"tag": "a", "file": "a:b", "kwargs": {"a": {1}}}),
        (zoo.Family, {"distribution": None, "catalogue": "a:b"}),
    ],
    ids=str,
)
def test_description_field_of_wrong_type_is_refused(kind, junk):
    with pytest.raises(zoo.UsageError, match="must be"):
        kind(**junk)


def test_validate_accepts_lists_and_integers():
    preprocess = zoo.Preprocess(size=[32, 32], mean=[0, 0, 0], std=[1, 1, 1])
    assert preprocess == zoo.Preprocess(size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert leafnet(heads=[zoo.Head("fc")], weights=iter([])).heads == (zoo.Head("fc"),)
    weights = zoo.Weights("a", file="a:b", classes=["x", "y"], num_classes=2)
    assert weights.classes == ("x", "y")


def test_descriptions_are_deeply_immutable():
    given = {"depths": [1, 2], "stem": {"width": 8}}
    backbone = leafnet(kwargs=given, weights=(zoo.Weights("a", file="a:b", kwargs=given),))
    for kwargs in (backbone.kwargs, backbone.weights[0].kwargs):
        for change in (
            lambda kwargs=kwargs: kwargs.__setitem__("zzz", 1),
            lambda kwargs=kwargs: kwargs.update(zzz=1),
            lambda kwargs=kwargs: kwargs["depths"].append(3),
            lambda kwargs=kwargs: kwargs["stem"].pop("width"),
        ):
            with pytest.raises(TypeError, match="cannot be changed"):
                change()
    given["depths"].append(3)
    assert backbone.kwargs == {"depths": [1, 2], "stem": {"width": 8}}
    with pytest.raises(TypeError, match="cannot be changed"):
        zoo.get("resnet18").kwargs["zzz"] = 1


def test_descriptions_hash_copy_pickle_and_replace():
    backbone = leafnet(kwargs={"depths": [1, 2], "stem": {"width": 8}})
    assert len({backbone, leafnet(), leafnet(name="other")}) == 3
    assert len({*backbone.weights, *leafnet().weights}) == 2
    for twin in (
        copy.copy(backbone),
        copy.deepcopy(backbone),
        pickle.loads(pickle.dumps(backbone)),
        dataclasses.replace(backbone),
        restore_backbone(json.loads(json.dumps(to_dict(backbone)))),
    ):
        assert (twin, hash(twin)) == (backbone, hash(backbone))
        with pytest.raises(TypeError, match="cannot be changed"):
            twin.kwargs["stem"]["width"] = 9
    assert json.loads(json.dumps(dataclasses.asdict(backbone)))["kwargs"]["depths"] == [1, 2]
    assert {**backbone.kwargs, "wide": 1}["wide"] == dict(leafnet().weights[1].kwargs)["wide"]


@pytest.mark.parametrize(
    ("name", "summary", "target", "message"),
    [
        ("Leaf", "leaves", "leaf:Leaf", "'Leaf' is not a task name"),
        ("leaf_area", "leaves", "leaf:Leaf", "is not a task name"),
        ("leaf--area", "leaves", "leaf:Leaf", "is not a task name"),
        ("-leaf", "leaves", "leaf:Leaf", "is not a task name"),
        ("leaf", " ", "leaf:Leaf", "a summary of one line"),
        ("leaf", "leaves\nand more", "leaf:Leaf", "a summary of one line"),
        ("leaf", "leaves", "leaf.Leaf", "has the target 'leaf.Leaf'"),
        ("leaf", "leaves", "leaf:", "has the target 'leaf:'"),
        ("leaf", 5, "leaf:Leaf", "summary must be str"),
    ],
)
def test_task_invalid_field_is_refused(name, summary, target, message):
    with pytest.raises(zoo.UsageError, match=message):
        zoo.Task(name, summary, target)


def test_task_valid_fields_are_accepted():
    task = zoo.Task("leaf-area2", "the area of leaves", "leaf.area:Area.Mean")
    assert task.with_source("leaf", "plugin leaf").name == "leaf-area2"
    assert (task.source, task.with_source("leaf", "plugin leaf").source) == ("", "leaf")


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (zoo.Backbone, {"builder": "leafnet.build"}, "has the builder 'leafnet.build'"),
        (zoo.Backbone, {"builder": "leafnet:"}, "has the builder 'leafnet:'"),
        (zoo.Weights, {"convert": "leafnet.convert"}, "have the converter 'leafnet.convert'"),
        (zoo.Weights, {"classes": "leafnet"}, "have the classes 'leafnet'"),
        (zoo.Weights, {"file": "leafnet.pth"}, "have the file 'leafnet.pth'"),
        (zoo.Weights, {"sha256": "no digest"}, "have the sha256 'no digest'"),
        (zoo.Weights, {"classes": ("a", "b")}, "name 2 classes, and have num_classes=1000"),
        (zoo.Family, {"catalogue": "leafnet"}, "has the catalogue 'leafnet'"),
    ],
)
def test_malformed_reference_raises(cls, fields, message):
    valid = {
        zoo.Backbone: {
            "name": "x",
            "builder": "a:b",
            "heads": (zoo.Head("fc"),),
            "preprocess": zoo.Preprocess(8),
        },
        zoo.Weights: {"tag": "a", "file": "a:b"},
        zoo.Family: {"distribution": "zoo-leaf"},
    }
    with pytest.raises(zoo.UsageError, match=re.escape(message)):
        cls(**{**valid[cls], **fields})


def test_function_in_place_of_its_name_is_refused():
    def inner():
        """Has no name to import."""

    for builder, way in (
        (leafnet, f'write "{__name__}:leafnet"'),
        (inner, "define it at the top level of a module"),
        (lambda: 1, "define it at the top level of a module"),
    ):
        with pytest.raises(zoo.UsageError, match=re.escape(way)):
            leafnet(builder=builder)
    with pytest.raises(zoo.UsageError, match=re.escape('write "zoo.spec.backbone:Head"')):
        zoo.Task("leaf-counting", "Number of leaves", zoo.Head)
