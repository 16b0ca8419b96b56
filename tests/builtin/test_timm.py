"""timm: catalogue, heads, preprocess, conversion of weights, against timm itself."""

import json
import math
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_data_config
from timm.models import list_models, list_pretrained
from torch import nn

from zoo.builtin import timm_build
from zoo.builtin.timm_catalogue import enumerate_backbones
from zoo.errors import WeightsError
from zoo.models.build_options import BuildOptions
from zoo.records import to_dict
from zoo.registry.catalogue import restore_backbone
from zoo.spec import Backbone, resolve_target
from zoo.tensorfile import check_path

INSTALLED = set(list_models())

REFUSED = INSTALLED & {
    "deepseek_vit_412m_enc",
    "gemma4_vit_167m_enc",
    "gemma4_vit_570m_enc",
    "mobilenetv5_300m_enc",
    "qwen3_vit_88m_enc",
    "qwen3_vit_306m_enc",
    "qwen3_vit_416m_enc",
}


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {backbone.name: backbone for backbone in enumerate_backbones()}


@pytest.fixture(scope="module")
def everything(backbones: dict[str, Backbone]) -> list[str]:
    return [f"{b.name}.{w.tag}" for b in backbones.values() for w in b.weights]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the test opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", refuse)


def on_meta(backbone: Backbone, tag: str | None = None) -> nn.Module:
    own = backbone.find_weights(tag).kwargs if tag else {}
    with torch.device("meta"):
        return timm_build.build(**{**backbone.kwargs, **own})


def test_adapter_imports_nothing_heavy() -> None:
    code = (
        "import sys; from zoo.builtin import timm as adapter; "
        "[family] = adapter.zoo_register_backbones(); "
        "print(family.catalogue, {'torch', 'timm', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "zoo.builtin.timm_catalogue:enumerate_backbones set()"


def test_catalogue_has_every_architecture_and_weights(
    backbones: dict[str, Backbone], everything: list[str]
) -> None:
    assert list(backbones) == list_models()
    # timm lists untagged weights under the bare name; their tag would be empty.
    assert len(everything) == len(set(everything))
    assert set(everything) == set(list_pretrained())


def test_default_weights_are_first(backbones: dict[str, Backbone]) -> None:
    for backbone in backbones.values():
        if backbone.weights:
            default = timm.models.get_pretrained_cfg(backbone.name)
            assert default is not None
            assert backbone.weights[0].tag == default.tag
            assert backbone.weights[0].preprocess is None
            assert backbone.license == backbone.weights[0].license


def test_descriptions_round_trip_through_json(backbones: dict[str, Backbone]) -> None:
    text = json.dumps({name: to_dict(backbone) for name, backbone in backbones.items()})
    read = {name: restore_backbone(plain) for name, plain in json.loads(text).items()}
    assert read == backbones


def test_encoders_without_head_are_refused(backbones: dict[str, Backbone]) -> None:
    assert {name for name, backbone in backbones.items() if backbone.refuse} == REFUSED
    for name in REFUSED:
        assert backbones[name].heads == ()
        assert "num_classes" in (backbones[name].refuse or "")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_encoders_ignore_num_classes(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
    ends = [getattr(m, "out_features", getattr(m, "out_channels", None)) for m in model.modules()]
    assert 10 not in ends


@pytest.mark.parametrize(
    "full_name",
    [
        "resnet18.a1_in1k",
        "resnet18.a3_in1k",
        "resnet18.tv_in1k",
        "vit_base_patch16_224.augreg_in21k",
        "vit_base_patch16_clip_224.openai",
        "vit_base_patch16_sapiens2.fb",
        "tf_efficientnet_lite0.in1k",
        "convnext_base.fb_in22k_ft_in1k_384",
        "dm_nfnet_f0.dm_in1k",
        "deepseek_vit_412m.deepseek_v4_1_flash",
        "test_vit.r160_in1k",
    ],
)
def test_preprocess_equals_timm_data_config(backbones: dict[str, Backbone], full_name: str) -> None:
    name, _, tag = full_name.partition(".")
    if name not in INSTALLED:
        pytest.skip(f"timm {timm.__version__} has no {name}")
    cfg = timm.models.get_pretrained_cfg(full_name)
    assert cfg is not None
    data = resolve_data_config(pretrained_cfg=cfg.to_dict())
    ours = backbones[name].preprocess_for(backbones[name].find_weights(tag))
    assert (3, *ours.size) == data["input_size"]  # type: ignore[misc]
    assert ours.resize == math.floor(min(data["input_size"][1:]) / data["crop_pct"])
    assert (ours.crop, ours.interpolation) == (data["crop_mode"], data["interpolation"])
    assert (ours.mean, ours.std) == (data["mean"], data["std"])


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("resnet18", None, {"fc": ("main", nn.Linear)}),
        ("vgg11", None, {"head.fc": ("main", nn.Linear)}),
        ("eca_nfnet_l0", None, {"head.fc": ("main", nn.Linear)}),
        ("swin_tiny_patch4_window7_224", None, {"head.fc": ("main", nn.Linear)}),
        ("coat_tiny", None, {"head": ("main", nn.Linear)}),
        ("maxvit_rmlp_pico_rw_256", None, {"head.fc": ("main", nn.Linear)}),
        ("caformer_s18", None, {"head.fc.fc2": ("main", nn.Linear)}),
        ("hgnet_tiny", None, {"head.fc": ("main", nn.Linear)}),
        ("resnet50_clip", None, {"head.proj": ("main", nn.Linear)}),
        ("resnetv2_50x1_bit", None, {"head.fc": ("main", nn.Conv2d)}),
        ("crossvit_tiny_240", None, {"head.0": ("main", nn.Linear), "head.1": ("main", nn.Linear)}),
        ("volo_d1_224", None, {"head": ("main", nn.Linear), "aux_head": ("main", nn.Linear)}),
        (
            "deit_tiny_distilled_patch16_224",
            None,
            {"head": ("main", nn.Linear), "head_dist": ("distill", nn.Linear)},
        ),
        (
            "efficientformer_l1",
            None,
            {"head": ("main", nn.Linear), "head_dist": ("distill", nn.Linear)},
        ),
        (
            "repvit_m0_9",
            None,
            {"head.head.l": ("main", nn.Linear), "head.head_dist.l": ("distill", nn.Linear)},
        ),
        (
            "levit_128s",
            None,
            {"head.linear": ("main", nn.Linear), "head_dist.linear": ("distill", nn.Linear)},
        ),
        (
            "levit_384_s8",
            None,
            {"head.linear": ("main", nn.Linear), "head_dist.linear": ("distill", nn.Linear)},
        ),
        ("levit_512_s8", None, {"head.linear": ("main", nn.Linear)}),
        ("vit_small_patch14_dinov2", None, {"head": ("main", nn.Identity)}),
        ("vit_small_patch16_224", "augreg_in21k", {"head": ("main", nn.Linear)}),
        ("vit_small_patch16_224", "dino", {"head": ("main", nn.Identity)}),
    ],
)
def test_heads_are_leaf_modules_of_expected_type(
    backbones: dict[str, Backbone],
    name: str,
    tag: str | None,
    expected: dict[str, tuple[str, type[nn.Module]]],
) -> None:
    backbone = backbones[name]
    model = on_meta(backbone, tag)
    leaves = {
        head.path: (head.role, model.get_submodule(head.module_path)) for head in backbone.heads
    }
    assert list(leaves) == list(expected)
    classes = backbone.find_weights(tag or backbone.weights[0].tag).num_classes if tag else None
    for path, (role, leaf) in leaves.items():
        assert role == expected[path][0]
        assert isinstance(leaf, expected[path][1])
        if classes:
            assert getattr(leaf, "out_features", classes) == classes


def test_volo_returns_one_tensor_in_training(backbones: dict[str, Backbone]) -> None:
    model = on_meta(backbones["volo_d1_224"]).train()
    logits = model(torch.empty(2, 3, 224, 224, device="meta"))
    assert logits.shape == (2, 1000)


def test_fbnetc_weights_set_batchnorm_eps(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["fbnetc_100"]
    model = on_meta(backbone, backbone.weights[0].tag)
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_weights_licenses(backbones: dict[str, Backbone]) -> None:
    licenses = {w.license for b in backbones.values() for w in b.weights}
    assert {"apache-2.0", "cc-by-nc-4.0", None} <= licenses
    assert "unknown" not in licenses


def test_class_names_match_num_classes(backbones: dict[str, Backbone]) -> None:
    named = {
        (w.classes, w.num_classes)
        for b in backbones.values()
        for w in b.weights
        if isinstance(w.classes, str)
    }
    assert len(named) == 6
    for target, width in named:
        names = resolve_target(target)()
        assert len(names) == len(set(names)) == width
    assert backbones["resmlp_12_224"].find_weights("fb_dino").classes is None
    names = timm_build.imagenet_1k()
    assert (names[0], names[282], names[967]) == ("tench", "tiger cat", "espresso")
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("code from a file ran",)


@pytest.mark.usefixtures("no_network")
class TestConvert:
    def saved(self, name: str, **kwargs: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        return timm_build.build(name=name, **kwargs).state_dict()

    @pytest.mark.parametrize(("name", "tag"), [("resnet10t", "c3_in1k"), ("test_vit", "r160_in1k")])
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
    def test_converts_published_file(self, backbones, tmp_path, name, tag, suffix) -> None:
        state = self.saved(name, tag=tag)
        path = tmp_path / f"published{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        backbone = backbones[name]
        converted = timm_build.convert(path, backbone, backbone.find_weights(tag))
        assert list(converted) == list(state)
        assert all(torch.equal(converted[key], state[key]) for key in state)
        assert not any(tensor.requires_grad for tensor in converted.values())

    def test_converts_wrapped_and_reshaped_state_dict(self, backbones, tmp_path) -> None:
        # The state dict under a key, the patch embedding as a matrix: timm converts both.
        state = self.saved("test_vit", tag="r160_in1k")
        patches = "patch_embed.proj.weight"
        published = {**state, patches: state[patches].flatten(1)}
        torch.save({"model": published, "epoch": 300}, tmp_path / "published.pth")
        backbone = backbones["test_vit"]
        converted = timm_build.convert(tmp_path / "published.pth", backbone, backbone.weights[0])
        assert all(torch.equal(converted[key], state[key]) for key in state)

    def test_converts_file_for_one_input_channel(self, backbones, tmp_path) -> None:
        state = self.saved("resnet10t", tag="c3_in1k")
        save_file(state, tmp_path / "published.safetensors")
        changed = BuildOptions(in_chans=1).apply(backbones["resnet10t"])
        weights = changed.find_weights("c3_in1k")
        converted = timm_build.convert(tmp_path / "published.safetensors", changed, weights)
        (first,) = [name for name in state if converted[name].shape != state[name].shape]
        # A grayscale image has equal channels, so their weights are summed.
        torch.testing.assert_close(converted[first], state[first].sum(dim=1, keepdim=True))
        others = state.keys() - {first}
        assert all(torch.equal(converted[name], state[name]) for name in others)

    def test_converts_file_for_another_input_size(self, backbones, tmp_path) -> None:
        state = self.saved("test_vit", tag="r160_in1k")
        save_file(state, tmp_path / "published.safetensors")
        changed = BuildOptions(input_size=96).apply(backbones["test_vit"])
        weights = changed.find_weights("r160_in1k")
        converted = timm_build.convert(tmp_path / "published.safetensors", changed, weights)
        other = [name for name in state if converted[name].shape != state[name].shape]
        assert other == ["pos_embed"]
        model = timm_build.build(**{**changed.kwargs, **weights.kwargs})
        model.load_state_dict(converted)
        assert model.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)

    def test_tied_tensors_stay_tied(self, backbones, tmp_path) -> None:
        state = self.saved("coat_tiny")
        torch.save(state, tmp_path / "coat.pth")
        backbone = backbones["coat_tiny"]
        converted = timm_build.convert(tmp_path / "coat.pth", backbone, backbone.weights[0])

        def count_storages(tensors):
            return len({tensor.data_ptr() for tensor in tensors.values()})

        assert count_storages(converted) == count_storages(state) < len(state)

    def test_npz_is_read_by_load_pretrained(self, backbones, tmp_path, monkeypatch):
        read = []
        monkeypatch.setattr(
            timm.models.VisionTransformer,
            "load_pretrained",
            lambda model, path: read.append((Path(path).suffix, Path(path).read_bytes())),
        )
        backbone = backbones["vit_tiny_patch16_224"]
        (tmp_path / "jax.npz").write_bytes(b"PK\x03\x04 arrays")
        checked = check_path(tmp_path / "jax.npz")
        (tmp_path / "jax.npz").write_bytes(b"others")  # since it was checked
        timm_build.convert(checked, backbone, backbone.weights[0])
        assert read == [(".npz", b"PK\x03\x04 arrays")]

    def test_pickle_with_code_is_refused(self, backbones, tmp_path, capsys) -> None:
        (tmp_path / "old.pth").write_bytes(pickle.dumps(Hostile()))
        torch.save({"fc.weight": Hostile()}, tmp_path / "new.pth")
        backbone = backbones["resnet10t"]
        for name in ("old.pth", "new.pth"):
            with pytest.raises(WeightsError, match=name):
                timm_build.convert(tmp_path / name, backbone, backbone.weights[0])
        assert "ran" not in capsys.readouterr().out

    def test_file_of_another_network_is_refused(self, backbones, tmp_path) -> None:
        save_file(self.saved("test_vit"), tmp_path / "other.safetensors")
        backbone = backbones["resnet10t"]
        with pytest.raises(WeightsError, match=r"other\.safetensors .* resnet10t\.c3_in1k"):
            timm_build.convert(tmp_path / "other.safetensors", backbone, backbone.weights[0])

    @pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(2), None])
    def test_file_without_weights_is_refused(self, backbones, tmp_path, content) -> None:
        torch.save(content, tmp_path / "odd.pth")
        backbone = backbones["resnet10t"]
        with pytest.raises(WeightsError, match=r"odd\.pth"):
            timm_build.convert(tmp_path / "odd.pth", backbone, backbone.weights[0])

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
    @pytest.mark.parametrize("content", [b"", b"torn"])
    def test_truncated_file_is_refused(self, backbones, tmp_path, suffix, content) -> None:
        path = tmp_path / f"torn{suffix}"
        path.write_bytes(content)
        backbone = backbones["test_vit"]
        with pytest.raises(WeightsError, match=rf"torn\{suffix}"):
            timm_build.convert(path, backbone, backbone.weights[0])


def settings(model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
    plain = (bool, int, float, str, tuple)
    return [
        (name, {key: value for key, value in vars(module).items() if isinstance(value, plain)})
        for name, module in model.named_modules()
    ]


@pytest.mark.timeout(0)
@pytest.mark.census
def test_builds_every_network_like_timm(
    backbones: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[str, object] = {"from": "the file"}

    def load(model: nn.Module, pretrained_cfg: dict[str, Any], **kwargs: object) -> None:
        assert pretrained_cfg["state_dict"] == own  # else it would be downloaded

    monkeypatch.setattr("timm.models._builder.load_pretrained", load)
    overlay = {"state_dict": own}
    for backbone in backbones.values():
        for weights in backbone.weights[:1]:
            full_name = f"{backbone.name}.{weights.tag}"
            with torch.device("meta"):
                theirs = timm.create_model(
                    full_name, pretrained=True, pretrained_cfg_overlay=overlay
                )
            assert settings(on_meta(backbone, weights.tag)) == settings(theirs), full_name
