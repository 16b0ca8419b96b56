"""The weights of the package, in both implementations, without a network."""

import hashlib
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import skimage.data
import torch
import torchvision
from PIL import Image
from zoo_mobilenet_v2 import plugin

import zoo
from zoo.models.weight_sources import package_file
from zoo.registry.registry import load_registry
from zoo.testing.offline import forbid_network
from zoo.testing.weight_checks import run_weight_check

FILE, ADDED = plugin.zoo_register_weights()
TIMM = "timm/mobilenetv2_100"


def published() -> dict[str, torch.Tensor]:
    return torch.load(package_file(FILE.file), weights_only=True)  # type: ignore[no-any-return]


def test_entry_point_loads_plugin() -> None:
    [point] = entry_points(group="zoo", name="mobilenet_v2")
    assert point.load() is plugin


def test_installed_file_is_the_one_torchvision_publishes() -> None:
    url = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url
    digest = hashlib.sha256(package_file(FILE.file).read_bytes()).hexdigest()
    assert digest == FILE.sha256
    assert url.endswith(f"-{digest[:8]}.pth")
    assert ADDED.weights.url == url


def test_backbones_of_both_libraries_have_weights() -> None:
    ours, theirs = zoo.get("torchvision/mobilenet_v2"), zoo.get(TIMM)
    assert [weights.tag for weights in theirs.weights] == ["ra_in1k", "tv_in1k"]
    first, added = ours.find_weights("IMAGENET1K_V1"), theirs.find_weights("tv_in1k")
    assert (added.digest, added.license) == (plugin.SHA256, None)
    assert ours.preprocess_for(first) == theirs.preprocess_for(added)
    assert (first.metrics, first.classes) == (added.metrics, added.classes)


@torch.no_grad()
def test_weights_classify_cat_and_coffee_equally() -> None:
    # The default weights of both are others, which cannot be downloaded here.
    with forbid_network():
        names = ("torchvision/mobilenet_v2", TIMM)
        networks = [zoo.get(name).build(weights="auto").eval() for name in names]
    reference = torchvision.models.mobilenet_v2()
    reference.load_state_dict(published())
    transform = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    photos = [Image.fromarray(array) for array in (skimage.data.chelsea(), skimage.data.coffee())]
    images = torch.stack([transform(photo) for photo in photos])
    expected = reference.eval()(images)
    for network in networks:
        assert torch.equal(network(images), expected)
    classes = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    cat, coffee = (classes[index] for index in expected.argmax(1))
    assert cat in {"tabby", "tiger cat", "Egyptian cat"}
    assert coffee == "espresso"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Parts of two photos, as two classes."""
    for name, array in (("cat", skimage.data.chelsea()), ("coffee", skimage.data.coffee())):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for left in range(0, 120, 12):
            part = Image.fromarray(array[:280, left : left + 280])
            part.save(tmp_path / "photos" / name / f"{left}.png")
    return tmp_path / "photos"


def test_plan_names_default_that_cannot_be_downloaded(photos: Path) -> None:
    with forbid_network() as attempts:
        plan = zoo.plan("mobilenet_v2", data=photos, device="cpu")
    assert plan.weights == "IMAGENET1K_V1"
    assert any("download.pytorch.org" in attempt for attempt in attempts)


def test_transfer_from_installed_weights(photos: Path, tmp_path: Path) -> None:
    with forbid_network():
        run = zoo.finetune("mobilenet_v2", data=photos, out=tmp_path / "run", device="cpu")
    assert run.record["base"]["sha256"] == plugin.SHA256
    reason = run.record["plan"]["reasons"]["weights"]
    assert reason.startswith("auto: in the cache; IMAGENET1K_V2, the default, cannot be downloaded")
    assert run.metrics["val"]["top1"] == 1.0
    [answer] = zoo.predict(run.path, photos / "cat" / "0.png", device="cpu")
    assert answer["predictions"][0]["class"] == "cat"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("MobileNet_V2_Weights.IMAGENET1K_V1", "auto"),
        ("mobilenet_v2.IMAGENET1K_V1", "auto"),
        ("mobilenet_v2", torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1),
        ("timm/mobilenetv2_100.tv_in1k", "auto"),
        (TIMM, "mobilenetv2_100.tv_in1k"),
    ],
)
def test_names_of_publishers_select_installed_weights(name: str, weights: object) -> None:
    with forbid_network() as attempts:
        network = zoo.get(name).build(weights=weights)  # type: ignore[arg-type]
    first = next(iter(published().values()))
    assert torch.equal(next(network.parameters()), first)
    assert attempts == []


def test_named_default_is_not_replaced_by_others() -> None:
    named = zoo.get("MobileNet_V2_Weights.DEFAULT")
    with forbid_network(), pytest.raises(zoo.WeightsError, match="cannot reach") as caught:
        named.build(weights="auto")
    assert "give weights IMAGENET1K_V1, or" in (caught.value.hint or "")


def test_weights_conform(tmp_path: Path) -> None:
    registry = load_registry()
    for item in (FILE, ADDED):
        finding = run_weight_check(item, registry)
        assert finding.status == "passed", finding
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(package_file(FILE.file).read_bytes()[:-1])
    for file, reason in ((str(damaged), "is not the file"), ("no_package:w.pth", "not installed")):
        finding = run_weight_check(replace(FILE, file=file), registry)
        assert (finding.status, reason in finding.detail) == ("failed", True)
    other = replace(ADDED, weights=replace(ADDED.weights, tag="other"))
    finding = run_weight_check(other, registry)
    assert (finding.status, "tagged 'other'" in finding.detail) == ("failed", True)
