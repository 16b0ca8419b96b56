"""Activation maps, against maps computed by hand, in networks of channels and of tokens."""

import threading

import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.engine.features.activation_maps import Layout, activation_maps, find_map, layout_of
from zoo.engine.runtime.network import Network
from zoo.spec import Head, Preprocess
from zoo.tasks.classification.task import ImageClassification

SIZE = 32
PREPROCESS = Preprocess(size=SIZE, resize=SIZE)


class Channels(nn.Module):
    """A convolutional network with an activation in place, pooling and a linear head."""

    def __init__(self):
        super().__init__()
        convolution = nn.Conv2d(3, 6, 5, 4, 2)
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Tokens(nn.Module):
    """A block of attention whose head reads the class token."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.value, self.after = nn.Linear(8, 8), nn.Linear(8, 8)
        self.fc = nn.Linear(8, 4)

    def tokens(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return self.norm(torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1))

    def from_values(self, x, values):
        weights = (x @ x.transpose(1, 2)).softmax(dim=-1)
        return self.fc(self.after(x + weights @ values)[:, 0])

    def forward(self, x):
        x = self.tokens(x)
        return self.from_values(x, self.value(x))


class Flat(nn.Module):
    """A network without places."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5))
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(self.body(x))


def network_of(module, precision="fp32"):
    torch.manual_seed(0)
    network = module()
    heads, device = (Head("fc"),), torch.device("cpu")
    return Network(network, heads, PREPROCESS, device, precision, ImageClassification())


def images(count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator)


OUTPUTS = torch.tensor([2, 0, 3])


def test_map_of_channels_is_class_activation_map():
    network, pixels = network_of(Channels), images()
    module = network.module.train().requires_grad_(False)
    forwards = network.forwards
    maps = activation_maps(network, pixels, OUTPUTS)
    assert (network.forwards, torch.is_grad_enabled()) == (forwards, True)
    assert all(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    activations = module.eval().body(pixels)
    expected = torch.einsum("nchw,nc->nhw", activations, module.fc.weight[OUTPUTS]) / 64
    assert maps.shape == (3, 8, 8)
    assert torch.allclose(maps, expected.clamp(min=0), atol=1e-6)
    assert float(maps.max()) > 0


def test_map_of_class_token_is_taken_before_attention():
    network, pixels = network_of(Tokens), images()
    place = find_map(network, pixels[:1], 2)
    # The last module's output of the image's tokens does not reach the head.
    assert (place.module, place.layout) == ("value", Layout(2, 1, (4, 4)))
    maps = activation_maps(network, pixels, OUTPUTS, place)
    module = network.module
    x = module.tokens(pixels)
    values = module.value(x).detach().requires_grad_()
    logits = module.from_values(x.detach(), values)
    logits.gather(1, OUTPUTS[:, None]).sum().backward()
    expected = (values * values.grad).sum(dim=-1)[:, 1:].reshape(3, 4, 4).clamp(min=0)
    assert torch.allclose(maps, expected, atol=1e-6)
    assert float(maps.max()) > 0


def test_map_of_bf16_is_close():
    exact, half = network_of(Channels), network_of(Channels, "bf16")
    maps = [activation_maps(each, images(), OUTPUTS) for each in (exact, half)]
    assert torch.allclose(*maps, atol=0.05 * float(maps[0].max()))


def test_network_without_map_is_refused():
    with pytest.raises(zoo.UsageError, match="no spatial map before its head"):
        activation_maps(network_of(Flat), images(), OUTPUTS)


def test_other_thread_predicts_beside_explanation():
    network, pixels = network_of(Channels), images()
    network.module.eval()
    expected, logits = activation_maps(network, pixels, OUTPUTS), []
    inside, done = threading.Event(), threading.Event()

    def predict():
        inside.wait(10)
        with torch.no_grad():
            logits.append(network.forward(pixels).main)
        done.set()

    thread = threading.Thread(target=predict)
    thread.start()

    def pause(*_):
        if threading.current_thread() is not thread:
            inside.set()
            done.wait(10)

    handle = network.module.body[0].register_forward_hook(pause)
    maps = activation_maps(network, pixels, OUTPUTS)
    thread.join()
    handle.remove()
    assert torch.equal(maps, expected)
    with torch.no_grad():
        assert torch.equal(logits[0], network.forward(pixels).main)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 512, 7, 7), Layout(1, 0, (7, 7))),
        ((2, 7, 7, 768), Layout(3, 0, (7, 7))),
        ((2, 197, 192), Layout(2, 1, (14, 14))),
        ((2, 201, 192), Layout(2, 5, (14, 14))),
        ((2, 49, 192), Layout(2, 0, (7, 7))),
        ((2, 512, 1, 1), None),  # pooled
        ((2, 3, 197, 64), None),  # heads of attention
        ((2, 3, 50, 50), None),  # weights of attention
        ((128, 49, 96), None),  # windows
        ((2, 512), None),
        ((2, 8, 4, 7, 7), None),
    ],
)
def test_layout_follows_from_shape(shape, expected):
    assert layout_of(shape, 2, (224, 224)) == expected


def test_layout_of_oblong_input_and_inception():
    assert layout_of((1, 71, 8), 1, (160, 224)) == Layout(2, 1, (7, 10))
    assert layout_of((1, 64, 8, 8), 1, (299, 299)) == Layout(1, 0, (8, 8))


@pytest.mark.parametrize(
    ("name", "head", "side"), [("vit", "head", 10), ("convnext", "head.fc", 5)]
)
def test_architectures_of_timm_have_maps(name, head, side):
    module = timm.create_model(f"test_{name}", num_classes=3)
    preprocess, device = Preprocess(size=160), torch.device("cpu")
    task = ImageClassification()
    network = Network(module, (Head(head),), preprocess, device, "fp32", task)
    pixels = torch.randint(256, (2, 3, 160, 160), dtype=torch.uint8)
    maps = activation_maps(network, pixels, torch.tensor([0, 2]))
    assert maps.shape == (2, side, side)
    assert int((maps > 0).sum()) > 4
