"""Features of given images: against the libraries' own, without side effects on the network."""

import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import zoo
from zoo.cache import conversions_dir

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "edgenext_xx_small"])
def test_features_match_timm_pre_logits(name):
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(IMAGES), pre_logits=True)
    actual = zoo.features(network, IMAGES, f"timm/{name}")
    assert actual.dtype == torch.float32
    close(actual, expected)


def test_features_match_torchvision():
    network = torchvision.models.resnet18().eval()
    with torch.no_grad():
        expected = nn.Sequential(*list(network.children())[:-1])(IMAGES).flatten(1)
    close(zoo.features(network, IMAGES, "resnet18"), expected)
    squeeze = torchvision.models.squeezenet1_1().eval()
    with torch.no_grad():
        maps = squeeze.features(IMAGES)
    close(zoo.features(squeeze, IMAGES, zoo.get("squeezenet1_1")), maps)  # read by a convolution


def test_features_do_not_depend_on_new_head():
    backbone = zoo.get("lite0")
    published = zoo.features("lite0", IMAGES)
    for head in ("linear", "mlp:8,dropout=0.5"):
        model = backbone.build(classes=2, weights="auto", head=head)
        close(zoo.features(model, IMAGES), published)


@pytest.mark.parametrize("frozen", [False, True])
def test_features_restores_modes_and_buffers(tinynet, frozen):
    model = zoo.get(tinynet).build(classes=3)
    if frozen:
        zoo.freeze(model)
    model.train()
    model.drop.eval()
    modes = [part.training for part in model.modules()]
    before = copy.deepcopy(model.state_dict())
    zoo.features(model, IMAGES[..., :32, :32])
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.head.fc._forward_hooks
    with pytest.raises(zoo.BrokenBackbone):
        zoo.features(model, IMAGES[..., :2, :2])
    assert [part.training for part in model.modules()] == modes
    assert not model.head.fc._forward_hooks


TWO_HEADS = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=16)
        heads = (zoo.Head("one"), zoo.Head("two"))
        yield zoo.Backbone("twohead", "plugin_twohead:build", heads, small)

    def build(weights=None):
        from torch import nn

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Linear(3, 4), nn.Linear(6, 4)

            def forward(self, x):
                means = x.mean((2, 3))
                return self.one(means) + self.two(means.repeat(1, 2) * 2)

        return Two()
"""


def test_features_of_two_main_heads_are_concatenated(install):
    install("twohead", TWO_HEADS)
    model = zoo.get("twohead/twohead").build()
    images = IMAGES[..., :16, :16]
    means = images.mean((2, 3))
    close(zoo.features(model, images), torch.cat([means, means * 2, means * 2], dim=1))


def test_features_of_deep_copy(tinynet):
    model = zoo.get(tinynet).build(classes=3)
    close(zoo.features(copy.deepcopy(model), IMAGES), zoo.features(model, IMAGES))


def test_features_image_forms_are_equivalent(tinynet, image_folder):
    model = zoo.get(tinynet).build(classes=3)
    path = sorted((image_folder / "val" / "flag").iterdir())[0]
    expected = zoo.features(model, path)
    image = Image.open(path).convert("RGB")
    pixels = zoo.transform(model)(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for form in (str(path), path.read_bytes(), image, array, tensor, pixels, pixels[None]):
        close(zoo.features(model, form), expected)
    close(zoo.features(model, pixels[None].double()), expected)
    many = zoo.features(model, [path] * 5, batch_size=2)
    assert many.shape == (5, 16)
    close(many, expected.expand(5, -1))


def test_uint8_tensors_are_preprocessed_like_images(tinynet):
    model = zoo.get(tinynet).build(classes=3)
    pixels = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    images = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pixels]
    expected = zoo.features(model, images)
    assert torch.equal(zoo.features(model, pixels), expected)
    prepared = torch.stack([zoo.transform(model)(image) for image in images])
    close(zoo.features(model, prepared), expected)


def test_features_of_run_folder(tinynet, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = zoo.finetune(
        tinynet, data=image_folder, weights="none", epochs=1, precision="fp32", device="cpu"
    )
    path = sorted((image_folder / "val" / "flag").iterdir())[0]
    by_folder = zoo.features(run.path, path, device="cpu")
    close(zoo.features(run.path / "model.safetensors", path, device="cpu"), by_folder)
    close(run.model("cpu").features(path), by_folder)
    close(zoo.features(run.model("cpu").module, path), by_folder)


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        ([], zoo.UsageError, "no images"),
        (IMAGES[:0], zoo.UsageError, "no images"),
        (IMAGES[0, 0], zoo.DataError, "prepared image [3, height, width]"),
        (IMAGES[:, :2], zoo.DataError, "prepared image [3, height, width]"),
        (IMAGES.long(), zoo.DataError, "of int64 is not an image"),
    ],
)
def test_features_invalid_images_raise(tinynet, images, kind, message):
    model = zoo.get(tinynet).build(classes=3)
    with pytest.raises(kind) as caught:
        zoo.features(model, images)
    assert message in str(caught.value)


def test_features_invalid_network_raises(tinynet):
    with pytest.raises(zoo.UsageError, match="name its backbone"):
        zoo.features(nn.Linear(2, 2), IMAGES)
    with pytest.raises(zoo.UsageError, match="a int has no features"):
        zoo.features(3, IMAGES)
    with pytest.raises(zoo.UsageError, match=r"no published weights.*build\(\)"):
        zoo.features(tinynet, IMAGES)
    with pytest.raises(zoo.UsageError, match=r"is a tiny/tinynet, not a torchvision/resnet18"):
        zoo.features(zoo.get(tinynet).build(), IMAGES, "resnet18")
    with pytest.raises(zoo.DataError, match=r"nowhere\.jpg"):
        zoo.features(zoo.get(tinynet).build(), "nowhere.jpg")


def test_features_of_heads_at_two_scales_raise():
    model = zoo.get("lraspp_mobilenet_v3_large").build(classes=3)
    message = r"low_classifier \[40, 8, 8\], classifier.high_classifier \[128, 8, 8\]"
    with pytest.raises(zoo.UsageError, match=message):
        zoo.features(model, torch.rand(1, 3, 64, 64))


def test_features_head_that_does_not_run_raises():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(zoo.BrokenBackbone, match="nothing arrives at the head 'fc'"):
        zoo.features(Bypass(), IMAGES, "resnet18")


def test_features_of_many_images_are_computed_by_openvino(tinynet, own_cache, monkeypatch):
    model = zoo.get(tinynet).build(classes=3)
    images = list(torch.randint(256, (35, 3, 40, 44), dtype=torch.uint8))
    expected = zoo.features(model, images, engine="torch")
    assert not conversions_dir().exists()
    monkeypatch.setattr("zoo.engine.backends.choice.MIN_IMAGES", 35)
    monkeypatch.setattr("zoo.engine.backends.choice.IMAGES_PER_MODULE", 0)
    model.train()
    assert torch.equal(zoo.features(model, images[:20]), expected[:20])  # too few to import it
    assert not conversions_dir().exists()
    actual = zoo.features(model, images)
    assert len(list(conversions_dir().iterdir())) == 1
    assert model.training
    assert not torch.equal(actual, expected)
    close(actual, expected)
    assert torch.equal(zoo.features(model, images, engine="openvino"), actual)
