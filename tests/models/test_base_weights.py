"""One record for the weights that a network starts from: resolved once, each file read once."""

import gc
import hashlib
import os
import subprocess
import sys
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.files import cache_dir
from zoo.modelfile import ModelCard, write_model
from zoo.models.base_weights import resolve_base
from zoo.models.build import build
from zoo.models.build_options import BuildOptions
from zoo.models.provenance import provenance_of
from zoo.models.weight_sources import converted_file, record_file

SQUEEZENET = "torchvision/squeezenet1_1"


def test_resolve_random_weights():
    backbone = zoo.get(SQUEEZENET)
    for choice in (None, "none"):
        base = resolve_base(backbone, choice)
        assert (base.kind, base.name, base.random, base.availability) == (
            "none",
            "none",
            True,
            None,
        )
        assert (base.kwargs, base.preprocess) == (backbone.kwargs, backbone.preprocess)
        assert base.license_reason == "not applicable: randomly initialised"


def test_published_weights_before_and_after_loading():
    backbone = zoo.get("lite0")
    auto, named = resolve_base(backbone, "auto"), resolve_base(backbone, "imagenet")
    assert auto.reason == "auto: the default, installed"
    assert named.reason == "as given, installed"
    assert replace(auto, reason=named.reason) == named
    assert (auto.kind, auto.name, auto.random) == ("published", "imagenet", False)
    assert (auto.published, auto.availability) == (backbone.weights[0], "installed")
    assert (auto.license, auto.license_reason) == ("Apache-2.0", "of these weights")
    assert (auto.preprocess, auto.preprocess_reason) == (backbone.preprocess, "of these weights")
    assert auto.sha256 is None
    loaded = provenance_of(build(backbone, auto)).base
    assert loaded == replace(auto, sha256=backbone.weights[0].sha256)
    assert loaded.to_dict() == {
        "kind": "published",
        "tag": "imagenet",
        "sha256": backbone.weights[0].sha256,
        "license": "Apache-2.0",
        "left_out": (),
        "untrained": (),
    }


def test_resolve_base_does_not_download(file_server, own_cache):
    address, digits = file_server(b"whatever")
    weights = zoo.Weights("far", url=f"{address}/good-{digits}.pth")
    base = resolve_base(replace(zoo.get(SQUEEZENET), weights=(weights,)), "auto")
    assert (base.availability, base.reason) == ("download", "auto: the default, to be downloaded")
    assert file_server.asked == []


def test_auto_without_published_weights_raises():
    backbone = replace(zoo.get(SQUEEZENET), weights=())
    with pytest.raises(zoo.WeightsError, match="no weights are published"):
        resolve_base(backbone, "auto")


def test_plain_file_uses_default_weights_preprocess(tmp_path):
    backbone = zoo.get("torchvision/vgg16")
    features = next(weights for weights in backbone.weights if weights.features_only)
    backbone = replace(backbone, weights=(features,))
    path = tmp_path / "own.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    base = resolve_base(backbone, str(path))
    assert (base.kind, base.name, base.path) == ("file", "own.safetensors", path)
    assert base.preprocess == features.preprocess != backbone.preprocess
    assert base.preprocess_reason == "of IMAGENET1K_FEATURES, which the file is assumed to match"
    assert (base.license, base.license_reason) == (None, "none is stated; ask their publisher")


def card(backbone: zoo.Backbone, path: Path, **differing) -> Path:
    """Write a model file of a backbone with no tensors in it."""
    stated = {
        "backbone": backbone.id,
        "kwargs": dict(backbone.kwargs),
        "heads": backbone.heads,
        "task": "image-classification",
        "schema": {"classes": ["a", "b", "c"]},
        "preprocess": backbone.preprocess,
        "precision": "fp32",
        "base": {"license": "MIT"},
    }
    write_model(path, {}, ModelCard(**(stated | differing)))
    return path


def test_model_file_sets_kwargs_and_preprocess(tmp_path):
    backbone = zoo.get(SQUEEZENET)
    own = zoo.Preprocess(size=96)
    path = card(backbone, tmp_path / "model.safetensors", preprocess=own)
    base = resolve_base(backbone, str(path))
    assert (base.preprocess, base.preprocess_reason) == (own, "of the model file")
    assert (base.license, base.kwargs) == ("MIT", backbone.kwargs)
    with pytest.raises(
        zoo.WeightsError, match=f"a model of {SQUEEZENET}, not torchvision/resnet18"
    ):
        resolve_base(zoo.get("resnet18"), str(path))


def test_build_options_override_model_file(tmp_path):
    backbone = zoo.get("timm/swin_tiny_patch4_window7_224")
    path = tmp_path / "model.safetensors"
    sizes = {
        (224, None): None,
        (224, 448): 448,
        (448, 224): 224,
        (448, 448): 448,
    }
    for (built, asked), expected in sizes.items():
        before = BuildOptions(input_size=built).apply(backbone)
        card(before, path)
        options = BuildOptions(input_size=asked)
        base = resolve_base(options.apply(backbone), str(path), options)
        assert base.kwargs.get("img_size") == expected, (built, asked)
        assert base.preprocess.size == (asked or built,) * 2
    grey = BuildOptions(in_chans=1).apply(backbone)
    card(grey, path)
    assert resolve_base(backbone, str(path)).kwargs["in_chans"] == 1
    options = BuildOptions(in_chans=3)
    base = resolve_base(options.apply(backbone), str(path), options)
    assert (base.kwargs["in_chans"], base.preprocess.channels) == (3, 3)
    assert base.preprocess_reason == "of the model file, --in-chans 3"


def test_untrained_layers_are_known_before_loading(tmp_path):
    backbone = zoo.get("torchvision/vgg11")
    state = {n: t for n, t in backbone.build().state_dict().items() if n.startswith("features")}
    path = tmp_path / "features.safetensors"
    save_file(state, path)
    weights = zoo.Weights("features", file=str(path), num_classes=0, features_only=True)
    headless = replace(backbone, weights=(weights,))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    base = resolve_base(headless, "auto")
    assert base.untrained == ("classifier.0", "classifier.3")
    assert torch.equal(torch.rand(1), expected)
    assert provenance_of(build(headless, base, 2)).base.untrained == base.untrained
    whole = replace(headless, weights=(replace(weights, features_only=False),))
    assert resolve_base(whole, "auto").untrained == ()
    # A norm in front of a head belongs to the features.
    convnext = zoo.get("timm/convnextv2_atto")
    tag = next(weights.tag for weights in convnext.weights if weights.features_only)
    assert resolve_base(convnext, tag).untrained == ()


def test_file_tensors_are_released_after_loading(tmp_path):
    backbone = zoo.get(SQUEEZENET)
    path = tmp_path / "own.safetensors"
    save_file(backbone.build().state_dict(), path)
    base = resolve_base(backbone, str(path))
    file = weakref.ref(base.file)
    model = build(backbone, base, 3)
    del base
    gc.collect()
    assert file() is None
    assert provenance_of(model).base.file is None


# Python's own account of what a process opens, of its children too, one path on each line.
AUDIT = """
import os, sys

def note(event, arguments, log=os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND)):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & os.O_ACCMODE == 0:
        os.write(log, os.fsencode(arguments[0]) + b"\\n")

sys.addaudithook(note)
"""


@pytest.fixture
def opened(tmp_path, image_folder):
    """Train on weights in a process of its own; return how often each file was read."""
    site = tmp_path / "audit"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT)

    def train(name: str, weights: str | Path) -> Counter:
        log = tmp_path / "opened.txt"
        log.write_text("")
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        command = [
            "finetune",
            name,
            "--data",
            image_folder,
            "--weights",
            weights,
            "--train",
            "head",
        ]
        subprocess.run(
            [sys.executable, "-m", "zoo", *command, "--epochs", "1", "--device", "cpu"],
            check=True,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OPENED": str(log)},
        )
        return Counter(os.path.realpath(tmp_path / line) for line in log.read_text().splitlines())

    return train


@pytest.mark.slow
def test_user_file_is_read_once(tinynet, tmp_path, opened):
    model = zoo.get(tinynet).build(classes=3)
    plain, own = tmp_path / "plain.safetensors", tmp_path / "own.safetensors"
    save_file(model.state_dict(), plain)
    zoo.save(model, own, ["flag", "mammal", "playing_card"])
    for path in (plain, own):
        assert opened(tinynet, path)[str(path.resolve())] == 1


@pytest.mark.slow
def test_installed_weights_are_read_once(own_cache, opened):
    backbone = zoo.get("lite0")
    (weights,) = backbone.weights
    package, _, inside = weights.file.partition(":")
    (folder,) = __import__(package).__path__
    installed = str((Path(folder) / inside).resolve())
    first = opened("lite0", "imagenet")
    converted = converted_file(record_file(backbone, weights))
    assert (first[installed], first[str(converted)]) == (1, 0)
    second = opened("lite0", "imagenet")
    assert (second[installed], second[str(converted)]) == (0, 1)
    assert converted.parent == cache_dir() / "weights"


def test_installed_safetensors_is_read_once(install, tmp_path, opened):
    from tests.networks import PLAIN

    path = tmp_path / "published.safetensors"
    install("plain", PLAIN)
    save_file(zoo.get("plain/plainnet").build().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = f"zoo.Weights('first', file={str(path)!r}, sha256={digest!r}, num_classes=7)"
    install(
        "published",
        PLAIN.replace("small)", f"small, ({weights},))").replace(
            "plugin_plain", "plugin_published"
        ),
    )
    assert opened("published/plainnet", "first")[str(path.resolve())] == 1


def leaves(tmp_path, **default):
    """Return a backbone whose default weights are elsewhere, and whose others are files."""
    weights = [zoo.Weights("default", num_classes=7, **default)]
    for tag, number in (("wider", 9), ("local", 7), ("later", 7)):
        path = tmp_path / f"{tag}.safetensors"
        path.touch()
        weights.append(zoo.Weights(tag, file=str(path), num_classes=number))
    return replace(zoo.get(SQUEEZENET), weights=tuple(weights))


def test_auto_uses_local_weights_where_default_is_unreachable(tmp_path, caplog):
    backbone = leaves(tmp_path, url="http://weights.invalid/leaf-00000000.pth")
    base = resolve_base(backbone, "auto")
    assert (base.tag, base.availability) == ("local", "installed")
    assert base.reason.startswith("auto: installed; default, the default, cannot be downloaded")
    assert "using local, installed" in caplog.text


def test_auto_prefers_reachable_default_to_local_weights(tmp_path, file_server):
    address, digits = file_server(b"whatever")
    backbone = leaves(tmp_path, url=f"{address}/good-{digits}.pth")
    base = resolve_base(backbone, "auto")
    assert (base.tag, base.reason) == ("default", "auto: the default, to be downloaded")
    assert file_server.asked == []


def test_auto_without_alike_local_weights_is_default(tmp_path, caplog):
    backbone = leaves(tmp_path, url="http://weights.invalid/leaf-00000000.pth")
    base = resolve_base(replace(backbone, weights=backbone.weights[:2]), "auto")
    assert (base.tag, base.availability, caplog.text) == ("default", "download", "")
