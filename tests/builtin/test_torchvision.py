import json
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision import models
from torchvision.models import regnet, segmentation
from torchvision.models.vision_transformer import interpolate_embeddings

from zoo.builtin.torchvision import DATA, HEADS, zoo_register_backbones
from zoo.builtin.torchvision_build import build, convert, describe, imagenet_classes
from zoo.errors import WeightsError
from zoo.models.build_options import BuildOptions
from zoo.spec import Backbone, Weights, resolve_target

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in zoo_register_backbones()}
CLASSIFIERS = models.list_models(module=models)
DENSE = models.list_models(module=segmentation)
INSTALLED = sorted([*CLASSIFIERS, *DENSE])
RECORDED = json.loads(DATA.read_text())
SAME_VERSION = torchvision.__version__.partition("+")[0] == RECORDED["torchvision"]
PUBLISHED = [
    pytest.param(BACKBONES[name], weights, id=f"{name}-{weights.tag}")
    for name in INSTALLED
    for weights in BACKBONES[name].weights
    if weights.tag in models.get_model_weights(name).__members__
]

CLASSES = {name: 21 if name in DENSE else 1000 for name in INSTALLED}

# What torchvision counts of googlenet is what is left once it has loaded the file, which contains
# the auxiliary heads, and has thrown those away. Of inception_v3 it counts them.
COUNTED_WITHOUT: Mapping[str, tuple[str, ...]] = {"googlenet": ("aux1.", "aux2.")}


@pytest.fixture
def regnet_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave RegNet's arithmetic on its block sizes, done with tensors, to the CPU."""
    original = regnet.RegNet

    def on_meta(*args: Any, **kwargs: Any) -> nn.Module:
        with torch.device("meta"):
            return original(*args, **kwargs)

    monkeypatch.setattr(regnet, "RegNet", on_meta)


def structure(backbone: Backbone, weights: Weights | None = None) -> nn.Module:
    """Build without values, through the adapter's own words; RegNet only with its fixture."""
    kwargs = {**backbone.kwargs, **(weights.kwargs if weights else {})}
    builder = resolve_target(backbone.builder)
    with torch.device("cpu" if backbone.name.startswith("regnet_") else "meta"):
        network: nn.Module = builder(weights=None, **kwargs)
    assert all(parameter.is_meta for parameter in network.parameters())
    return network


def entry(backbone: Backbone, weights: Weights) -> models.WeightsEnum:
    return models.get_model_weights(backbone.name)[weights.tag]


def test_adapter_reads_its_data_without_any_heavy_library(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from zoo.builtin.torchvision import zoo_register_backbones\n"
        "print(len(list(zoo_register_backbones())))\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:2] == [str(len(RECORDED["backbones"])), "[]"]


def test_recorded_data_is_what_the_installed_library_says() -> None:
    described = describe()
    for name in described.keys() & RECORDED["backbones"].keys():
        recorded = {row["tag"]: row for row in RECORDED["backbones"][name]}
        for row in described[name]:
            assert recorded.get(row["tag"], row) == row, name


@pytest.mark.skipif(not SAME_VERSION, reason="other versions may have more, or fewer")
def test_every_network_and_every_published_set_of_weights_is_registered() -> None:
    assert list(BACKBONES) == INSTALLED
    assert len(BACKBONES) == 80 + 6
    assert len(PUBLISHED) == sum(len(models.get_model_weights(name)) for name in INSTALLED) == 121


def test_default_weights_come_first() -> None:
    for name in INSTALLED:
        default = models.get_model_weights(name).DEFAULT
        backbone = BACKBONES[name]
        assert backbone.weights[0].tag == default.name
        assert backbone.preprocess == backbone.weights[0].preprocess
        if name not in COUNTED_WITHOUT:
            assert backbone.params == default.meta["num_params"]


def test_no_beginning_of_a_name_hides_another() -> None:
    for name in BACKBONES:
        assert len([beginning for beginning in HEADS if name.startswith(beginning)]) == 1, name


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.usefixtures("regnet_on_meta")
def test_heads_are_all_the_leaves_that_end_in_the_classes(name: str) -> None:
    network = structure(BACKBONES[name])
    ends = {
        path: module
        for path, module in network.named_modules()
        if CLASSES[name] in (getattr(module, a, None) for a in ("out_features", "out_channels"))
    }
    heads = BACKBONES[name].heads
    assert {head.module_path for head in heads} == set(ends)
    others = "main" if name.startswith("lraspp_") else "aux"
    assert [head.role for head in heads] == ["main"] + [others] * (len(heads) - 1)
    for module in ends.values():
        assert type(module) is nn.Linear or (
            type(module) is nn.Conv2d and module.kernel_size == (1, 1)
        )


@pytest.mark.parametrize(("backbone", "weights"), PUBLISHED)
@pytest.mark.usefixtures("regnet_on_meta")
def test_structure_has_as_many_parameters_as_published(
    backbone: Backbone, weights: Weights
) -> None:
    left_out = COUNTED_WITHOUT.get(backbone.name, ())
    counted = [
        parameter.numel()
        for path, parameter in structure(backbone, weights).named_parameters()
        if not path.startswith(left_out)
    ]
    assert sum(counted) == entry(backbone, weights).meta["num_params"]


@pytest.mark.parametrize(("backbone", "weights"), PUBLISHED)
def test_weights_are_described_as_published(backbone: Backbone, weights: Weights) -> None:
    published = entry(backbone, weights)
    transforms = published.transforms()
    preprocess = weights.preprocess
    assert preprocess is not None
    dense = backbone.name in DENSE
    size = transforms.resize_size if dense else transforms.crop_size
    assert list(preprocess.size) == size * 2  # type: ignore[arg-type]
    assert [preprocess.resize] == transforms.resize_size
    assert preprocess.interpolation == transforms.interpolation.value
    assert list(preprocess.mean) == transforms.mean
    assert list(preprocess.std) == transforms.std
    assert preprocess.crop == ("border" if dense else "center")
    assert transforms.antialias is True
    assert weights.url == published.url
    assert weights.digest is not None
    assert published.url.endswith(f"-{weights.digest}.pth")
    assert weights.license == published.meta.get("license")
    assert weights.features_only == (published.meta["categories"] is None)
    if weights.features_only:
        assert (weights.classes, weights.num_classes, dict(weights.metrics)) == (None, 0, {})
    else:
        (accuracy,) = published.meta["_metrics"].values()
        named = ("miou", "pixel_acc") if dense else ("acc@1", "acc@5")
        assert weights.num_classes == CLASSES[backbone.name]
        stated = [100 * value for value in weights.metrics.values()]
        assert stated == pytest.approx([accuracy[name] for name in named])
        assert isinstance(weights.classes, str)
        assert list(resolve_target(weights.classes)()) == published.meta["categories"]


def test_classes_are_those_of_imagenet() -> None:
    classes = imagenet_classes()
    assert len(classes) == len(set(classes)) == 1000
    assert (classes[0], classes[-1]) == ("tench", "toilet tissue")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_training_output_names_the_logits_of_every_head(name: str) -> None:
    backbone = BACKBONES[name]
    network = structure(backbone).train()
    seen: dict[str, torch.Tensor] = {}
    for head in backbone.heads:
        leaf = network.get_submodule(head.module_path)
        leaf.register_forward_hook(
            lambda _, __, logits, path=head.path: seen.__setitem__(path, logits)
        )
    output = network(torch.empty(2, 3, *backbone.preprocess.size, device="meta"))  # type: ignore[misc]
    assert set(output._fields) == {head.output for head in backbone.heads}
    for head in backbone.heads:
        assert isinstance(head.output, str)
        assert getattr(output, head.output) is seen[head.path]
    evaluated = network.eval()(torch.empty(2, 3, 299, 299, device="meta"))
    assert evaluated.shape == (2, 1000)


def test_weights_of_auxiliary_losses() -> None:
    losses = {
        f"{name}.{head.path}": head.loss_weight
        for name, backbone in BACKBONES.items()
        for head in backbone.heads
        if head.role == "aux"
    }
    assert losses == {
        "googlenet.aux1.fc2": 0.3,
        "googlenet.aux2.fc2": 0.3,
        "inception_v3.AuxLogits.fc": 0.4,
        **{f"{name}.aux_classifier[4]": 0.5 for name in DENSE if not name.startswith("lraspp_")},
    }


@pytest.mark.parametrize("name", [name for name in INSTALLED if BACKBONES[name].fixed_size])
def test_fixed_size_is_the_size_built_for(name: str) -> None:
    backbone = BACKBONES[name]
    network = structure(backbone).eval()
    size = backbone.preprocess.height
    assert network(torch.empty(1, 3, size, size, device="meta")).shape == (1, 1000)
    with pytest.raises((AssertionError, RuntimeError), match=r"Wrong image|shape"):
        network(torch.empty(1, 3, size + 32, size + 32, device="meta"))


def test_only_transformers_of_fixed_size_are_marked() -> None:
    marked = [name for name, backbone in BACKBONES.items() if backbone.fixed_size]
    assert marked == ["maxvit_t", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"]


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 75), ("alexnet", 63), ("vgg11", 32)])
def test_smallest_size(name: str, size: int) -> None:
    network = structure(BACKBONES[name]).eval()
    assert BACKBONES[name].min_size == size
    assert network(torch.empty(2, 3, size, size, device="meta")).shape == (2, 1000)
    with pytest.raises(RuntimeError):
        network(torch.empty(2, 3, size - 1, size - 1, device="meta"))


def test_no_smallest_size_is_made_up() -> None:
    assert BACKBONES["resnet18"].min_size is None


def test_random_weights_are_torchvisions_own() -> None:
    torch.manual_seed(0)
    ours = build(**BACKBONES["squeezenet1_1"].kwargs)
    torch.manual_seed(0)
    theirs = models.squeezenet1_1()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def as_once_published(state: dict[str, torch.Tensor]) -> None:
    """Give a state dict the shape of old files: DenseNet's and ViT's names, no counters."""
    for name in list(state):
        old = re.sub(r"(\.denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name)
        old = re.sub(r"\.mlp\.0\.", ".mlp.linear_1.", old)
        old = re.sub(r"\.mlp\.3\.", ".mlp.linear_2.", old)
        tensor = state.pop(name)
        if not name.endswith("num_batches_tracked"):
            state[old] = tensor


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """torch's own folder of downloads, where torchvision looks before it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    yield folder
    for path in folder.iterdir():
        path.unlink()  # hundreds of megabytes, which pytest would keep


@pytest.mark.parametrize(
    ("name", "tag", "versions"),
    [
        ("densenet121", "IMAGENET1K_V1", {}),
        ("googlenet", "IMAGENET1K_V1", {}),
        ("inception_v3", "IMAGENET1K_V1", {}),
        ("mnasnet0_5", "IMAGENET1K_V1", {"": {"version": 2}}),
        ("resnet18", "IMAGENET1K_V1", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:auxiliary heads:UserWarning")
def test_published_weights_make_the_network_that_torchvision_makes(
    name: str, tag: str, versions: dict[str, Any], checkpoints: Path
) -> None:
    backbone, weights = BACKBONES[name], BACKBONES[name].find_weights(tag)
    kwargs = {**backbone.kwargs, **weights.kwargs}
    state = build(**kwargs).state_dict()
    as_once_published(state)
    state._metadata = versions  # type: ignore[attr-defined]
    assert weights.url is not None
    path = checkpoints / weights.url.rpartition("/")[2]
    torch.save(state, path)

    converted = convert(path, backbone, weights)
    ours = build(**kwargs).eval()
    # The version that MNASNet insists on is not part of the tensors.
    current = ours.state_dict()
    current.update(converted)
    ours.load_state_dict(current)
    theirs = models.get_model(name, weights=tag).eval()

    assert converted.keys() == ours.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(converted[key], tensor), key
    image = torch.randn(1, 3, *weights.preprocess.size)  # type: ignore[union-attr, misc]
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_positions_are_resampled_for_another_size(tmp_path: Path) -> None:
    backbone = BACKBONES["vit_b_32"]
    state = build(**backbone.kwargs).state_dict()
    path = tmp_path / "published.pth"
    torch.save(state, path)
    changed = BuildOptions(input_size=96).apply(backbone)
    converted = convert(path, changed, changed.weights[0])
    ours = build(**{**changed.kwargs, **changed.weights[0].kwargs})
    ours.load_state_dict(converted)
    positions = "encoder.pos_embedding"
    theirs = interpolate_embeddings(96, 32, OrderedDict(state))
    assert converted[positions].shape == (1, 1 + 3 * 3, 768)
    assert torch.equal(converted[positions], theirs[positions])
    others = converted.keys() - {positions}
    assert all(torch.equal(converted[name], state[name]) for name in others)
    assert ours.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


def test_weights_that_are_features_only_are_read_without_their_classifier(tmp_path: Path) -> None:
    backbone = BACKBONES["squeezenet1_1"]
    weights = replace(backbone.weights[0], features_only=True)
    state = build(**backbone.kwargs).state_dict()
    state["classifier.1.weight"].fill_(torch.nan)
    torch.save(state, tmp_path / "published.pth")
    converted = convert(tmp_path / "published.pth", backbone, weights)
    assert {name.partition(".")[0] for name in converted} == {"features"}
    assert state.keys() - converted.keys() == {"classifier.1.weight", "classifier.1.bias"}


def test_only_vgg16_has_weights_that_are_features_only() -> None:
    found = [(b.name, w.tag) for b in BACKBONES.values() for w in b.weights if w.features_only]
    assert found == [("vgg16", "IMAGENET1K_FEATURES")]


@pytest.mark.parametrize("content", [b"<html>not found</html>", None], ids=["page", "other"])
def test_file_of_something_else_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    if content is None:
        torch.save({"features.0.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    backbone = BACKBONES["squeezenet1_1"]
    reason = r"does not contain squeezenet1_1 IMAGENET1K_V1" if content is None else "an HTML page"
    with pytest.raises(WeightsError, match=reason):
        convert(path, backbone, backbone.weights[0])


def test_module_prints_the_recorded_data(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(DATA.with_name("torchvision_build.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert list(json.loads(printed)["backbones"]) == INSTALLED
    if SAME_VERSION:
        assert printed == DATA.read_text()
