"""Building: weights, heads, and a user's own file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.models.build import resolve_and_build
from zoo.models.provenance import provenance_of


def test_build_replaces_heads_of_pretrained_weights():
    backbone = zoo.get("lite0")
    model = resolve_and_build(backbone, "auto", 10, seed=0)
    base = provenance_of(model).base
    assert base.kind == "published"
    assert base.tag == "imagenet"
    assert base.license == "Apache-2.0"
    assert model.classifier.out_features == 10
    again = resolve_and_build(backbone, "auto", 10, seed=0)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    published = backbone.build(weights="auto")
    assert published.classifier.out_features == 1000
    expected = {k: v for k, v in published.state_dict().items() if not k.startswith("classifier")}
    assert all(torch.equal(model.state_dict()[k], v) for k, v in expected.items())


def test_classes_are_a_number_or_unique_names(tinynet):
    backbone = zoo.get(tinynet)
    for classes in (np.int64(3), ["a", "b", "c"], np.array(["a", "b", "c"]), iter("abc")):
        assert backbone.build(classes=classes).head.fc.out_features == 3
    hint = "give a number, or a list of names"
    for classes in (3.0, True, "abc"):
        with pytest.raises(zoo.UsageError, match=f"classes is .*; {hint}"):
            backbone.build(classes=classes)
    for classes in ([1, 2], {"a": 0, "b": 1}, {"a", "b"}):
        with pytest.raises(zoo.UsageError, match="not a list of names; give a unique name"):
            backbone.build(classes=classes)
    with pytest.raises(zoo.UsageError, match="two classes have the same name"):
        backbone.build(classes=["a", "a"])
    with pytest.raises(zoo.UsageError, match="input_size is '96'"):
        backbone.build(classes=2, input_size="96")


def test_unknown_tag_lists_published_tags():
    with pytest.raises(zoo.UsageError, match="did you mean imagenet"):
        zoo.get("lite0").build(weights="imagenett")


def test_build_from_user_file(tmp_path):
    backbone = zoo.get("torchvision/mobilenet_v3_small")
    model = backbone.build(classes=7)
    path = tmp_path / "own.safetensors"
    save_file(model.state_dict(), path)
    other = backbone.build(3, path)
    base = provenance_of(other).base
    assert base.kind == "file"
    assert base.left_out == ("classifier.3.bias", "classifier.3.weight")
    assert torch.equal(other.features[0][0].weight, model.features[0][0].weight)
    same = backbone.build(7, path)
    assert provenance_of(same).base.left_out == ()
    assert torch.equal(same.classifier[3].weight, model.classifier[3].weight)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/mobilenet_v3_small"])
def test_published_weights_with_other_class_count(tmp_path, name):
    backbone = zoo.get(name)
    trained = backbone.build(classes=7)
    path = tmp_path / "seven.safetensors"
    save_file(trained.state_dict(), path)
    seven = replace(backbone, weights=(zoo.Weights("seven", file=str(path), num_classes=7),))
    loaded = seven.build(weights="auto")
    assert provenance_of(loaded).base.tag == "seven"
    assert all(map(torch.equal, loaded.state_dict().values(), trained.state_dict().values()))
    three = seven.build(3, "seven")
    leaf = "classifier.1" if "squeeze" in name else "classifier.3"
    assert len(three.get_submodule(leaf).weight) == 3
    wrong = replace(backbone, weights=(zoo.Weights("seven", file=str(path), num_classes=8),))
    with pytest.raises(zoo.BrokenBackbone, match="have 7 outputs, and state num_classes=8"):
        wrong.build(weights="seven")


def test_file_of_another_network_raises(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(zoo.get("torchvision/squeezenet1_1").build(classes=3).state_dict(), path)
    with pytest.raises(zoo.WeightsError, match="does not fit torchvision/resnet18"):
        zoo.get("resnet18").build(classes=3, weights=str(path))


def test_pickled_file_raises_with_hint(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(zoo.get("torchvision/squeezenet1_1").build(classes=3).state_dict(), path)
    with pytest.raises(zoo.WeightsError, match="safetensors only"):
        zoo.get("torchvision/squeezenet1_1").build(classes=3, weights=str(path))


def test_failing_builder_raises_broken_backbone():
    backbone = zoo.Backbone("x", "torch.nn:Linear", (zoo.Head("fc"),), zoo.Preprocess(size=32))
    with pytest.raises(zoo.BrokenBackbone, match="x does not build: TypeError"):
        backbone.build(classes=2)
    backbone = zoo.Backbone("x", "builtins:dict", (zoo.Head("fc"),), zoo.Preprocess(size=32))
    with pytest.raises(zoo.BrokenBackbone, match="no torch module"):
        backbone.build(classes=2)


def test_build_without_published_weights_raises():
    unpublished = next(b for b in zoo.list_backbones(source="timm", pretrained=False))
    with pytest.raises(zoo.WeightsError, match="no weights are published"):
        unpublished.build(classes=2, weights="auto")


BROKEN = {
    "syntax": ("def build(:", "SyntaxError"),
    "import": ("raise RuntimeError('no')", "RuntimeError: no"),
    "exits": ("import sys\ndef build(weights=None): sys.exit('bye')", "SystemExit: bye"),
    "no_parameters": (
        "from torch import nn\ndef build(weights=None): return nn.ReLU()",
        "no param",
    ),
    "extra_state": (
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def get_extra_state(self): return 3\n"
        "def build(weights=None): return nn.Sequential(nn.Flatten(), Net(3072, 2))",
        "no tensor",
    ),
    "identity_fails": (
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.a = nn.Linear(2, 2); self.one = nn.Identity()\n"
        "    def forward(self, x): raise KeyError('x')\n"
        "def build(weights=None): return Net()",
        "KeyError",
    ),
    "tied": (
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.one = self.two = nn.Linear(4, 2)\n"
        "def build(weights=None): return Net()\n",
        "under 2 names",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_plugin_errors_name_the_plugin(tmp_path, monkeypatch, kind):
    source, message = BROKEN[kind]
    (tmp_path / f"broken_{kind}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    backbone = zoo.Backbone(
        "x", f"broken_{kind}:build", (zoo.Head("one"),), zoo.Preprocess(size=32)
    )
    with pytest.raises((zoo.BrokenBackbone, zoo.BrokenPlugin), match=message):
        backbone.build(classes=3)
