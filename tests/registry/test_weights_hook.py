"""`zoo_register_weights`: files of installed packages, and weights for other plugins' backbones."""

import hashlib
import json

import pytest
import torch

import zoo
from tests.published_weights import checkpoint
from zoo.models.weight_sources import locate
from zoo.models.weights import fetch
from zoo.registry.registry import load_registry

CONTENT = {"weight": torch.randn(3, 4), "bias": torch.zeros(3)}

# Its weights are at an address that refuses connections.
LEAFNET = """
import zoo
from torch import nn

def build(weights=None):
    return nn.Linear(4, 3)

@zoo.hookimpl
def zoo_register_backbones():
    where = dict(url="http://127.0.0.1:9/{name}")
    yield zoo.Backbone(
        name="leafnet", builder="plugin_leaf:build", heads=(), refuse="a test",
        preprocess=zoo.Preprocess(size=32), weights=(zoo.Weights("one", num_classes=3, **where),),
    )
"""
OFFER = """
import zoo

@zoo.hookimpl
def zoo_register_weights():
    yield {record}
"""


DATA = checkpoint(CONTENT)
SHA256 = hashlib.sha256(DATA).hexdigest()
KNOWN, UNKNOWN = f"leaf-{SHA256[:8]}.pth", "leaf.pth"


@pytest.fixture(autouse=True)
def separate_cache(own_cache, monkeypatch):
    """Weights that one test converts are not those of another; nor is timm enumerated for each."""
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with the published file; importing it would fail."""
    folder = tmp_path / "packages" / "leafweights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('weights only')")
    (folder / "leaf.pth").write_bytes(DATA)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def offer(**fields) -> str:
    given = {"file": "leafweights:leaf.pth", "sha256": SHA256, **fields}
    return f"zoo.WeightFile({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def added(tag: str, backbone: str = "leaf/leafnet") -> str:
    weights = f'zoo.Weights("{tag}", file="leafweights:leaf.pth", num_classes=3)'
    return f'zoo.AddedWeights("{backbone}", {weights})'


def status_of(name: str) -> tuple[str, str | None]:
    (record,) = (r for r in load_registry().host.records if r.name == name)
    return record.status, record.error


@pytest.mark.parametrize(
    ("published", "record"),
    [(KNOWN, offer()), (UNKNOWN, offer(published=UNKNOWN))],
    ids=["by-digest", "by-name"],
)
def test_offered_file_replaces_download(install, package, published, record):
    install("leaf", LEAFNET.format(name=published))
    install("bytes", OFFER.format(record=record))
    backbone = zoo.get("leafnet")
    location = locate(backbone, backbone.weights[0])
    assert (location.kind, location.text) == ("installed", "installed with plugin bytes")
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256 == SHA256
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)


@pytest.mark.parametrize("record", [offer(), offer(published="other.pth")], ids=["none", "other"])
def test_weights_without_digest_require_published_name(install, package, record):
    install("leaf", LEAFNET.format(name=UNKNOWN))
    install("bytes", OFFER.format(record=record))
    backbone = zoo.get("leafnet")
    assert locate(backbone, backbone.weights[0]).kind == "download"


def test_damaged_offered_file_is_skipped_with_warning(install, package, caplog):
    install("leaf", LEAFNET.format(name=KNOWN))
    install("bytes", OFFER.format(record=offer()))
    (package / "leaf.pth").write_bytes(DATA[::-1])
    backbone = zoo.get("leafnet")
    with pytest.raises(zoo.WeightsError, match="cannot download"):
        fetch(backbone, backbone.weights[0])
    assert "leaf.pth is not the file that was published" in caplog.text
    assert "installed with plugin bytes" in caplog.text


def test_missing_package_is_named_where_download_fails(install):
    install("leaf", LEAFNET.format(name=KNOWN))
    install("bytes", OFFER.format(record=offer()))
    backbone = zoo.get("leafnet")
    assert locate(backbone, backbone.weights[0]).kind == "download"
    with pytest.raises(zoo.WeightsError, match=r"plugin bytes .* 'leafweights' is not installed"):
        fetch(backbone, backbone.weights[0])


def test_added_weights_are_last_and_owned(install, package, cli):
    install("leaf", LEAFNET.format(name=KNOWN))
    install("more", OFFER.format(record=added("two")))
    backbone = zoo.get("leafnet")
    assert [weights.tag for weights in backbone.weights] == ["one", "two"]
    assert zoo.list_backbones("leaf/*") == [backbone]
    assert len(fetch(backbone, backbone.find_weights("two")).tensors) == 2
    code, out, _ = cli("plugins", "show", "more", "--json")
    (shown,) = json.loads(out)["weights"]
    assert (code, shown["backbone"], shown["tag"]) == (0, "leaf/leafnet", "two")


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ("3", "registered int 3, not a WeightFile or AddedWeights"),
        (offer(sha256="abc"), "has sha256 'abc'; give the 64 hexadecimal digits"),
        (offer(file="leaf.pth"), "is not a path in a package"),
        (added("one"), "adds weights 'one' to leaf/leafnet, which has that tag"),
        (added("two", "leaf/leafnot"), "adds weights to leaf/leafnot, which does not exist"),
        (added("two", "leafnet"), "is not an id"),
        ("zoo.undefined", "AttributeError"),
    ],
)
def test_invalid_weights_drop_their_plugin_alone(install, package, caplog, record, error):
    install("leaf", LEAFNET.format(name=KNOWN))
    install("other", OFFER.format(record=record))
    install("quite", OFFER.format(record=added("three")))
    assert [weights.tag for weights in zoo.get("leafnet").weights] == ["one", "three"]
    status, message = status_of("other")
    assert (status, error in message) == ("failed", True), message
    assert [status_of(name)[0] for name in ("leaf", "quite")] == ["ok", "ok"]
    assert caplog.text.count("plugin 'other'") == 1


def test_tag_belongs_to_first_plugin(install, package):
    install("leaf", LEAFNET.format(name=KNOWN))
    for name in ("first", "second"):
        install(name, OFFER.format(record=added("two")))
    assert len(zoo.get("leafnet").weights) == 2
    assert status_of("first") == ("ok", None)
    assert "leaf/leafnet.two', which is that of plugin first" in status_of("second")[1]


def test_weights_for_absent_plugin_are_ignored(install, package):
    install("more", OFFER.format(record=added("two")))
    assert "leafnet" not in {backbone.name for backbone in zoo.list_backbones(source="torchvision")}
    assert status_of("more") == ("ok", None)


def test_strict_raises_error_of_added_weights(install, package, monkeypatch):
    monkeypatch.setenv("ZOO_STRICT", "1")
    install("leaf", LEAFNET.format(name=KNOWN))
    install("other", OFFER.format(record=added("one")))
    with pytest.raises(zoo.BrokenPlugin, match="which has that tag"):
        zoo.get("leafnet")
