"""A network on its device."""

import copy

import pytest
import torch
from torch import nn

import zoo
from zoo.engine.features.hooks import check_head_equivalence
from zoo.engine.runtime.head_hooks import HeadHooks
from zoo.engine.runtime.network import Network
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.task import ImageClassification


def test_weights_and_inputs_have_memory_format(tinynet):
    module = zoo.get(tinynet).build(classes=3).eval()
    made = provenance_of(module)
    cpu = torch.device("cpu")
    network = Network(
        module, made.backbone.heads, made.preprocess, cpu, "fp32", ImageClassification()
    )
    first = next(part for part in module.modules() if isinstance(part, torch.nn.Conv2d))
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    size = made.preprocess.height, made.preprocess.width
    network.forward(torch.zeros(2, 3, *size, dtype=torch.uint8))
    for tensor in (first.weight, seen[0]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_heads_compute_in_float32_under_bf16(tinynet):
    torch.manual_seed(0)
    module = zoo.get(tinynet).build(classes=2000).eval()
    made = provenance_of(module)
    network = Network(
        module,
        made.backbone.heads,
        made.preprocess,
        torch.device("cpu"),
        "bf16",
        ImageClassification(),
    )
    head, calls = module.head.fc, []
    head.register_forward_hook(lambda _, inputs, output: calls.append((*inputs, output)))
    size = made.preprocess.height, made.preprocess.width
    with torch.no_grad():
        network.forward(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
        [(features, logits)] = calls
        exact = torch.nn.functional.linear(features.float(), head.weight, head.bias)
    # The frozen part computes in bf16, in whose 8-bit significand most logits would tie.
    assert torch.equal(features, features.bfloat16().float())
    assert torch.equal(logits, exact)
    assert len(logits[0].unique()) > 1990
    assert len(logits[0].bfloat16().unique()) < 1500


class Named(nn.Module):
    """A network that gives its head the features by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, images):
        return self.fc(input=self.body(images.mean(dim=(2, 3))))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_head_may_get_its_input_by_name(precision):
    module, heads = Named().eval(), (zoo.Head("fc"),)
    task, preprocess = ImageClassification(), zoo.Preprocess(size=8)
    network = Network(module, heads, preprocess, torch.device("cpu"), precision, task)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad(), HeadHooks(module, network.paths) as hooks:
        logits = network.forward(images).main
        assert torch.equal(logits, module.fc(hooks.inputs["fc"].float()))
    assert check_head_equivalence(network, images)[0] is None


class Pooled(nn.Module):
    """A network with batch norm of maps, and of what is pooled of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten())
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.pooled(self.stem(x)))


def test_batch_of_one_uses_running_statistics_of_pooled_values():
    torch.manual_seed(0)
    module, task = Pooled(), ImageClassification()
    by_hand = copy.deepcopy(module)
    by_hand.pooled[1].eval()
    heads, size = [zoo.Head("fc")], zoo.Preprocess(size=8)
    network = Network(module, heads, size, torch.device("cpu"), "fp32", task)
    image = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(network.forward(image, training=True).main, by_hand(image))
    for name, buffer in by_hand.named_buffers():
        torch.testing.assert_close(module.get_buffer(name), buffer)
    assert all(part.training for part in module.modules())
    # Two images have a variance.
    by_hand.train()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network.forward(images, training=True).main, by_hand(images))
    assert module.pooled[1].num_batches_tracked == 1


def test_float_inputs_are_not_normalized_again():
    torch.manual_seed(0)
    module, heads, size = Pooled().eval(), [zoo.Head("fc")], zoo.Preprocess(size=8)
    network = Network(module, heads, size, torch.device("cpu"), "fp32", ImageClassification())
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (size.mean, size.std))
    floats = (pixels / 255 - mean) / std
    expected = module(floats)
    torch.testing.assert_close(network.forward(pixels).main, expected)
    torch.testing.assert_close(network.forward(floats).main, expected)
    padded = network.forward(pixels, pad_to=5).main
    torch.testing.assert_close(padded, expected)
    assert network.forwards == 9
