"""Weights and model files of an older version of a plugin, and faults of a newer one."""

import hashlib

import pytest
import torch

import zoo
from zoo.tasks.published import published_classes

MODEL = """
from torch import nn

NAMES = ("a", "b", "c")
TEXT = "ab"


class Net(nn.Module):
    def __init__(self, width, drop, scale, label):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.drop, self.scale = nn.Dropout(drop), scale
        self.fc = nn.Linear(width, 5)

    def forward(self, x):
        return self.fc(self.drop(self.conv(x).mean((2, 3)) * self.scale))


def build(weights=None, *, width=4, drop=0.1, scale=1.0, **unused):
    return Net(width, drop, scale, unused)


def download(weights=None):
    from urllib.error import URLError

    raise URLError("no route to host")
"""
PLUGIN = """
import zoo

@zoo.hookimpl
def zoo_register_backbones():
    yield zoo.Backbone("{name}", "leaf_versions:{builder}", (zoo.Head("fc"),),
                       zoo.Preprocess(size=16), kwargs={kwargs}, aliases={aliases})
"""


@pytest.fixture(autouse=True)
def module(install, tmp_path):
    (tmp_path / "site" / "leaf_versions.py").write_text(MODEL)


def plugin(name="leafnet", builder="build", kwargs=None, aliases=()):
    return PLUGIN.format(name=name, builder=builder, kwargs=kwargs or {}, aliases=aliases)


def backbone(name="leafnet", weights=(), **kwargs):
    preprocess = zoo.Preprocess(size=16)
    return zoo.Backbone(
        name,
        "leaf_versions:build",
        (zoo.Head("fc"),),
        preprocess,
        weights,
        kwargs,
        source="leaf",
        plugin="leaf",
    )


@pytest.fixture
def old(tmp_path):
    """A model file of the first version, and its tensors."""
    model = backbone(width=4).build(classes=["a", "b"])
    path = zoo.save(model, tmp_path / "old.safetensors", ["a", "b"])
    return path, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def registered(path, num_classes=2, **fields):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (zoo.Weights("v1", file=str(path), sha256=digest, num_classes=num_classes, **fields),)


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"width": 4, "drop": 0.1}, {"width": 4, "drop": 0.5}, {"width": 4, "label": "x"}],
)
def test_own_weights_load_where_network_is_equal(old, kwargs):
    path, tensors = old
    loaded = backbone(weights=registered(path), **kwargs).build(weights="v1").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("kwargs", [{"width": 8}, {"width": 4, "scale": 2.0}])
def test_own_weights_of_another_network_raise(old, kwargs):
    with pytest.raises(zoo.WeightsError, match=r"built with \{'width': 4\}, and is"):
        backbone(weights=registered(old[0]), **kwargs).build(weights="v1")


def test_model_file_of_former_name_loads(old, install):
    install("leaf", plugin("oaknet", aliases=("leafnet",)))
    assert zoo.get("leafnet").id == zoo.get("leaf/leafnet").id == "leaf/oaknet"
    model = zoo.load(old[0])
    assert list(model.classes) == ["a", "b"]
    assert torch.equal(model.module.fc.weight.cpu(), old[1]["fc.weight"])
    continued = zoo.get("oaknet").build(classes=["a", "b"], weights=old[0])
    assert torch.equal(continued.fc.weight, old[1]["fc.weight"])


def test_model_file_of_former_plugin_loads(old, install):
    install("oak", plugin(kwargs={"drop": 0.1}, aliases=("leaf/leafnet",)))
    assert zoo.get("leaf/leafnet").id == "oak/leafnet"
    assert torch.equal(zoo.load(old[0]).module.conv.weight.cpu(), old[1]["conv.weight"])


def test_alias_never_hides_a_present_backbone(install):
    install("oak", plugin("oaknet", aliases=("timm/resnet18", "timm/no_such_net", "resnet18")))
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    assert zoo.get("timm/resnet18").id == "timm/resnet18"
    with pytest.raises(zoo.UnknownBackbone):
        zoo.get("timm/no_such_net")
    with pytest.raises(zoo.UsageError, match="has the alias 'a b'"):
        zoo.Backbone("x", "a:b", (zoo.Head("fc"),), zoo.Preprocess(8), aliases=("a b",))


def test_wrong_number_of_classes_is_the_plugins_fault(old, tmp_path):
    state = backbone(width=4).build(classes=2).state_dict()
    from safetensors.torch import save_file

    save_file(state, tmp_path / "plain.safetensors")
    weights = registered(tmp_path / "plain.safetensors", num_classes=3)
    with pytest.raises(zoo.BrokenBackbone, match="have 2 outputs, and state num_classes=3"):
        backbone(weights=weights, width=4).build(weights="v1")


@pytest.mark.parametrize(
    ("classes", "message"),
    [("NAMES", "has 2 classes, but its adapter names 3"), ("TEXT", "one text, not a sequence")],
)
def test_wrong_class_names_are_the_plugins_fault(old, classes, message):
    weights = registered(old[0], classes=f"leaf_versions:{classes}")
    with pytest.raises(zoo.BrokenBackbone, match=message):
        published_classes(backbone(weights=weights), weights[0])


@pytest.mark.slow
def test_network_error_of_builder_exits_with_5(install, zoo_process):
    install("leaf", plugin(builder="download"))
    done = zoo_process("finetune", "leaf/leafnet", "--weights", "none", "--epochs", "1")
    assert done.returncode == 5
    assert "no route to host" in done.stderr
    assert "its author can register the file as zoo.Weights" in done.stderr
