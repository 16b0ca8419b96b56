"""Another image size, other channels: taken where the library builds it, else refused."""

import pytest
import torch

import zoo
from zoo.models.build_options import BuildOptions
from zoo.models.input_size import nearest_size, smallest_size, why_not_size


def test_a_size_keeps_the_share_that_the_crop_keeps():
    own = zoo.Preprocess(size=224, resize=256, interpolation="bicubic")
    changed = BuildOptions(input_size=112).preprocess(own)
    assert (changed.height, changed.resize, changed.interpolation) == (112, 128, "bicubic")


def test_channels_take_the_mean_of_the_colours():
    own = zoo.Preprocess(size=32, mean=(0.1, 0.2, 0.6), std=(0.2, 0.2, 0.5))
    assert BuildOptions(in_chans=1).preprocess(own).mean == pytest.approx((0.3,))
    assert BuildOptions(in_chans=1).preprocess(own).std == pytest.approx((0.3,))
    assert BuildOptions(in_chans=5).preprocess(own).mean == (0.1, 0.2, 0.6, 0.1, 0.2)


def test_a_network_of_any_size_takes_another():
    assert zoo.get("resnet18").build(classes=2, input_size=64)(torch.zeros(2, 3, 64, 64)).shape == (
        2,
        2,
    )


@pytest.mark.parametrize("name", ["torchvision/vit_b_32", "timm/vit_tiny_patch16_224"])
def test_a_transformer_is_built_for_the_size(name):
    model = zoo.get(name).build(classes=2, input_size=96)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 2)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the library's own refusal
        model(torch.zeros(1, 3, 224, 224))


def test_a_fixed_size_without_a_builder_argument_is_refused():
    with pytest.raises(zoo.UsageError, match=r"maxvit_t takes 224x224 images only; give 224"):
        zoo.get("maxvit_t").build(classes=2, input_size=96)
    assert zoo.get("maxvit_t").build(classes=2, input_size=224)


def test_channels_where_the_library_supports_them():
    model = zoo.get("timm/resnet18").build(classes=2, in_chans=1)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 2)
    with pytest.raises(zoo.UsageError, match="torchvision/resnet18 takes 3 channels"):
        zoo.get("resnet18").build(classes=2, in_chans=1)
    assert zoo.get("resnet18").build(classes=2, in_chans=3)


def test_sizes_are_found_by_running_and_leave_no_trace():
    model = zoo.get("resnet18").build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert why_not_size(model, zoo.Preprocess(size=64)) is None
    assert smallest_size(model, zoo.Preprocess(size=224), (48, 96)) == 48
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_the_nearest_size_is_named():
    class Even(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, x):
            if x.shape[-1] % 64:
                raise ValueError("not a multiple of 64")
            return self.layer(x.mean((2, 3)))

    assert why_not_size(Even(), zoo.Preprocess(size=70)) == "not a multiple of 64"
    assert nearest_size(Even(), zoo.Preprocess(size=224), 70) == 64


@pytest.mark.parametrize(
    ("name", "size"), [("timm/efficientvit_m0", 1), ("timm/vit_small_patch16_dinov3", 33)]
)
def test_a_network_that_stumbles_over_a_size_is_refused_like_any(name, size):
    # One divides by nought; of the other the width at its head is measured with that size.
    with pytest.raises(zoo.UsageError, match=rf"={size}: |--input-size {size}: "):
        zoo.plan(name, input_size=size, weights="none")
