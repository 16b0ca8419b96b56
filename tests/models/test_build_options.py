"""Build options: image size and channels, where the library supports them."""

import pytest
import torch

import zoo
from zoo.models.build_options import BuildOptions
from zoo.models.input_size import nearest_size, size_conflict, smallest_size


def test_input_size_preserves_crop_ratio():
    own = zoo.Preprocess(size=224, resize=256, interpolation="bicubic")
    changed = BuildOptions(input_size=112).preprocess(own)
    assert (changed.height, changed.resize, changed.interpolation) == (112, 128, "bicubic")


def test_input_size_of_non_square_preprocess():
    own = zoo.Preprocess(size=(160, 240), resize=201, crop="squash")
    changed = BuildOptions(input_size=80).preprocess(own)
    # The shorter side decides; the resize is rounded down, and never below the size.
    assert (changed.height, changed.width, changed.resize, changed.crop) == (80, 80, 100, "squash")
    assert BuildOptions(input_size=33).preprocess(zoo.Preprocess(64, 64)).resize == 33
    assert BuildOptions(input_size=60).preprocess(zoo.Preprocess(64, 50)).resize == 60


def test_in_chans_adapts_mean_and_std():
    own = zoo.Preprocess(size=32, mean=(0.1, 0.2, 0.6), std=(0.2, 0.2, 0.5))
    assert BuildOptions(in_chans=1).preprocess(own).mean == pytest.approx((0.3,))
    assert BuildOptions(in_chans=1).preprocess(own).std == pytest.approx((0.3,))
    assert BuildOptions(in_chans=5).preprocess(own).mean == (0.1, 0.2, 0.6, 0.1, 0.2)


def test_input_size_of_convolutional_network():
    assert zoo.get("resnet18").build(classes=2, input_size=64)(torch.zeros(2, 3, 64, 64)).shape == (
        2,
        2,
    )


@pytest.mark.parametrize("name", ["torchvision/vit_b_32", "timm/vit_tiny_patch16_224"])
def test_input_size_of_transformer_changes_builder_arguments(name):
    model = zoo.get(name).build(classes=2, input_size=96)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 2)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the library's own refusal
        model(torch.zeros(1, 3, 224, 224))


def test_input_size_without_builder_argument_raises():
    with pytest.raises(zoo.UsageError, match=r"maxvit_t takes 224x224 images only; give 224"):
        zoo.get("maxvit_t").build(classes=2, input_size=96)
    assert zoo.get("maxvit_t").build(classes=2, input_size=224)


def test_in_chans_requires_library_support():
    model = zoo.get("timm/resnet18").build(classes=2, in_chans=1)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 2)
    with pytest.raises(zoo.UsageError, match="torchvision/resnet18 takes 3 channels"):
        zoo.get("resnet18").build(classes=2, in_chans=1)
    assert zoo.get("resnet18").build(classes=2, in_chans=3)


def test_smallest_size_restores_network():
    model = zoo.get("resnet18").build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert size_conflict(model, zoo.Preprocess(size=64)) is None
    assert smallest_size(model, zoo.Preprocess(size=224), (48, 96)) == 48
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_size_is_checked_on_two_images_in_training_mode():
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3)  # refuses a single image in training

        def forward(self, x):
            if self.training and x.shape[-1] < 32:
                raise ValueError("its auxiliary head needs 32")
            return self.norm(x.mean((2, 3)))

    model = Pooled().eval()
    assert size_conflict(model, zoo.Preprocess(size=32)) is None
    assert size_conflict(model, zoo.Preprocess(size=24)) == "its auxiliary head needs 32"
    assert model.norm.num_batches_tracked == 0
    assert not model.training
    assert smallest_size(model, zoo.Preprocess(size=64), (16, 24, 40, 48)) == 40
    assert smallest_size(model, zoo.Preprocess(size=28), (16, 24, 40)) == 28


class Multiples(torch.nn.Module):
    """A network that takes sizes from a smallest on that are multiples of a step."""

    def __init__(self, step, least=0):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.step, self.least = step, least

    def forward(self, x):
        if x.shape[-1] % self.step or x.shape[-1] < self.least:
            raise ValueError(f"not a multiple of {self.step} from {self.least} on")
        return self.layer(x.mean((2, 3)))


def test_unsupported_size_hints_at_nearest():
    own = zoo.Preprocess(size=224)
    assert size_conflict(Multiples(64), zoo.Preprocess(size=70)) == "not a multiple of 64 from 0 on"
    assert nearest_size(Multiples(64), own, 70) == 64
    # Of all multiples of 32 the nearest, and the larger of two that are as near.
    sizes = {70: 64, 90: 96, 80: 96, 33: 32, 10: 32}
    assert {size: nearest_size(Multiples(32), own, size) for size in sizes} == sizes
    assert nearest_size(Multiples(32, least=96), own, 33) == 96
    assert nearest_size(Multiples(32, least=160), own, 33) is None


@pytest.mark.parametrize(
    ("name", "size"), [("timm/efficientvit_m0", 1), ("timm/vit_small_patch16_dinov3", 33)]
)
def test_unsupported_size_raises_usage_error(name, size):
    # One divides by nought; of the other the width at its head is measured with that size.
    with pytest.raises(zoo.UsageError, match=rf"={size}: |--input-size {size}: "):
        zoo.plan(name, input_size=size, weights="none")
    with pytest.raises(zoo.UsageError, match=rf"={size}: "):
        zoo.get(name).build(classes=2, input_size=size)
