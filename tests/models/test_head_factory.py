"""New heads: how they are written, where they may stand, and what they are made of."""

import copy

import pytest
import torch
from torch import nn

import zoo
from zoo.models.head_factory import HeadStack, MeanPool, place_head
from zoo.models.heads import find_module, replace_heads, resolve_head
from zoo.options import HeadSpec
from zoo.options.head_spec import PLAIN

SMALL = zoo.Preprocess(size=32)
MAIN = (zoo.Head("classifier[2]"),)


class Small(nn.Module):
    """A body that gives maps of features, and a classifier around the leaf."""

    def __init__(self, last_channels: bool = False, flat: bool = True) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.last_channels = last_channels
        pool = MeanPool() if last_channels else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(pool, nn.ReLU(), nn.Linear(6, 7))
        self.tail = nn.Identity() if flat else nn.Unflatten(1, (1, 7))

    def forward(self, x):
        x = self.body(x)
        return self.tail(self.classifier(x.movedim(1, 3) if self.last_channels else x))


def test_place_head_at_leaf_or_container():
    heads = (zoo.Head("classifier[6]"), zoo.Head("aux", role="aux"))
    assert place_head(heads, PLAIN, "x") == heads
    for at in ("classifier", "classifier.6"):
        main, aux = place_head(heads, HeadSpec.parse(None, at), "x")
        assert (main.module_path, main.role, aux) == (at, "main", heads[1])
    with pytest.raises(zoo.UsageError, match=r"give classifier\.6 or classifier$"):
        place_head(heads, HeadSpec.parse(None, "features"), "x")
    two = (zoo.Head("a"), zoo.Head("b"))
    with pytest.raises(zoo.UsageError, match="2 main heads: a, b"):
        place_head(two, HeadSpec.parse(None, "a"), "x")


def test_mlp_head_layers():
    model = Small()
    torch.manual_seed(0)
    replace_heads(model, MAIN, 3, SMALL, HeadSpec.parse("mlp:5,dropout=0.5"))
    torch.manual_seed(0)
    by_hand = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))
    new = model.classifier[2]
    assert isinstance(new, HeadStack)
    assert (new.width, new.classes) == (6, 3)
    assert [type(layer) for layer in new] == [type(layer) for layer in by_hand]
    for name, tensor in by_hand.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor)
    assert resolve_head(model, "classifier[2]") == "classifier.2"
    assert resolve_head(model, "classifier") == "classifier.2"


def test_mlp_replaces_main_and_distilled_heads_only():
    model = nn.ModuleDict({name: nn.Linear(6, 7) for name in ("main", "aux", "distill")}).double()
    heads = [zoo.Head("main"), zoo.Head("aux", role="aux"), zoo.Head("distill", role="distill")]
    replace_heads(model, heads, 3, SMALL, HeadSpec.parse("mlp:5,dropout=0.2"))
    assert [type(layer) for layer in model.values()] == [HeadStack, nn.Linear, HeadStack]
    assert model["main"][2].p == 0.2
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("last_channels", [False, True])
def test_head_at_container_pools_features(last_channels):
    model = Small(last_channels)
    new = HeadSpec.parse("mlp:5", "classifier")
    before = copy.deepcopy(model.body.state_dict())
    replace_heads(model, place_head(MAIN, new, "x"), 4, SMALL, new)
    assert isinstance(model.classifier, HeadStack)
    images = torch.rand(2, 3, 32, 32)
    pooled = model.body(images).mean(dim=(2, 3))
    *_, first, relu, last = model.classifier
    torch.testing.assert_close(model(images), last(relu(first(pooled))))
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.body.state_dict().items()
    )


def test_mlp_head_of_convolution_is_convolutional():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    replace_heads(model, [zoo.Head("1")], 4, SMALL, HeadSpec.parse("mlp:5"))
    assert [type(layer) for layer in model[1]] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)


def test_head_path_without_class_output_raises():
    new = HeadSpec.parse("mlp:5", "classifier")
    with pytest.raises(zoo.UsageError, match="--head-at classifier"):
        replace_heads(Small(flat=False), place_head(MAIN, new, "x"), 4, SMALL, new)


def test_head_at_container_of_tokens_raises():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 6, 8, 8)
            self.classifier = nn.Sequential(nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 7))

        def forward(self, x):
            return self.classifier(self.body(x).flatten(2).transpose(1, 2)).mean(1)

    new = HeadSpec.parse(None, "classifier")
    with pytest.raises(zoo.UsageError, match=r"\[1, 16, 6\], not one vector.*give classifier\.2"):
        replace_heads(Tokens(), place_head(MAIN, new, "x"), 4, SMALL, new)


@pytest.mark.parametrize(
    ("name", "at"),
    [("vgg16", "classifier"), ("alexnet", "classifier"), ("mobilenet_v3_small", None)],
)
def test_mlp_head_on_real_networks(name, at):
    backbone = zoo.get(name)
    model = backbone.build(classes=2, head="mlp:16,dropout=0.5", head_at=at, input_size=64)
    assert isinstance(find_module(model, at or backbone.heads[0].path), HeadStack)
    trained = zoo.freeze(model, backbone)
    assert len(trained) == 4
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    again = copy.deepcopy(model)
    assert len(zoo.freeze(again)) == 4
