"""Heads: resolved by path, replaced by the same type of layer."""

import pytest
import torch
from torch import nn

import zoo
from zoo.models.heads import find_module, replace_heads, resolve_head, running_width

SMALL = zoo.Preprocess(size=32)


class Container(nn.Module):
    def __init__(self, head: nn.Module, num_classes: int = 7) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), head)
        self.num_classes = num_classes

    def forward(self, x):
        return self.classifier(self.body(x))


def test_find_module_wrong_path_lists_children():
    model = Container(nn.Linear(6, 7))
    with pytest.raises(zoo.BrokenBackbone) as caught:
        find_module(model, "classifier[9]")
    assert "classifier has no child '9'; its children are 0, 1, 2" in str(caught.value)
    with pytest.raises(zoo.BrokenBackbone, match="did you mean classifier"):
        find_module(model, "clasifier")
    with pytest.raises(zoo.BrokenBackbone, match="no children"):
        find_module(model, "classifier[1].fc")


def test_resolve_head_of_container_is_last_leaf():
    model = Container(nn.Linear(6, 7))
    assert resolve_head(model, "classifier") == "classifier.2"
    assert resolve_head(model, "classifier[2]") == "classifier.2"
    with pytest.raises(zoo.BrokenBackbone, match="nothing to replace"):
        resolve_head(model, "classifier[1]")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_replace_heads_linear(bias, training):
    model = Container(nn.Linear(6, 7, bias=bias)).to(torch.float64).train(training)
    pretrained = model.classifier[0].weight.clone()
    assert replace_heads(model, [zoo.Head("classifier[2]")], 3, SMALL) == ["classifier.2"]
    new = model.classifier[2]
    assert type(new) is nn.Linear
    assert (new.in_features, new.out_features, new.bias is not None) == (6, 3, bias)
    assert (new.weight.dtype, new.training) == (torch.float64, training)
    assert model.num_classes == 3
    assert torch.equal(model.classifier[0].weight, pretrained)


def test_replace_heads_convolution():
    class Fully(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

        def forward(self, x):
            return self.classifier(x).flatten(1)

    model = Fully()
    replace_heads(model, [zoo.Head("classifier[0]")], 4, SMALL)
    assert isinstance(model.classifier[0], nn.Conv2d)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_replace_heads_identity_becomes_linear():
    model = Container(nn.Identity(), num_classes=0)
    modes = [m.training for m in model.modules()]
    replace_heads(model, [zoo.Head("classifier[2]")], 3, SMALL)
    assert model.classifier[2].in_features == 6
    assert model.num_classes == 3
    assert [m.training for m in model.modules()] == modes


def test_replace_heads_identity_of_tokens_has_width_of_last_dimension():
    tokens = nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.Flatten(2), nn.Unflatten(2, (16,)))
    model = nn.Sequential(tokens, nn.Identity())
    replace_heads(model, [zoo.Head("1")], 3, SMALL)  # [images, 5, 16]
    assert model[1].in_features == 16
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5, 3)


def test_replace_heads_keeps_stride_padding_and_precision_of_convolution():
    old = nn.Conv2d(3, 7, 1, stride=2, padding=1, bias=False)
    model = nn.Sequential(old, nn.ReLU()).double()
    replace_heads(model, [zoo.Head("0")], 4, SMALL)
    new = model[0]
    assert (new.kernel_size, new.stride, new.padding) == ((1, 1), (2, 2), (1, 1))
    assert (new.in_channels, new.out_channels, new.bias) == (3, 4, None)
    assert new.weight.dtype == torch.float64
    by_hand = nn.functional.conv2d(torch.ones(1, 3, 6, 6).double(), new.weight, None, 2, 1)
    assert torch.equal(model(torch.ones(1, 3, 6, 6).double()), by_hand.relu())


def test_running_width_restores_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Identity())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model[1].eval()
    assert running_width(model, "3", SMALL) == 4 * 30 * 30
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [part.training for part in model] == [True, False, True, True]
    assert model.training


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("inception_v3", ["fc", "AuxLogits.fc"]),
        ("googlenet", ["fc", "aux1.fc2", "aux2.fc2"]),
        ("vgg11", ["classifier.6"]),
        ("squeezenet1_1", ["classifier.1"]),
        ("convnext_tiny", ["classifier.2"]),
    ],
)
def test_replace_heads_replaces_all_heads(name, paths):
    backbone = zoo.get(f"torchvision/{name}")
    with torch.device("meta"):
        model = backbone.build()
        assert replace_heads(model, backbone.heads, 5, backbone.preprocess) == paths
        widths = {model.get_submodule(p).weight.shape[0] for p in paths}
    assert widths == {5}


def test_backbone_build_sets_classes():
    model = zoo.get("torchvision/mobilenet_v3_small").build(classes=4)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_build_encoder_without_head_raises():
    refused = next(b for b in zoo.list_backbones(source="timm") if b.refuse)
    with pytest.raises(zoo.UsageError, match="cannot be fine-tuned"):
        refused.build(classes=3)
