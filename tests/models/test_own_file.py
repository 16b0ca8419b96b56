"""What a name means where a backbone, a run folder and a file may have it."""

from pathlib import Path

import pytest

import zoo
from zoo.models.own_file import locate_model, locate_weights
from zoo.registry.registry import load_registry


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_folder_hides_no_backbone_unless_a_run(tinynet, cli):
    registry = load_registry()
    for name in ("tinynet", "leaves"):
        Path(name).mkdir()
    assert locate_model("tinynet", registry) is None
    assert locate_model("leaves", registry).path == Path("leaves/model.safetensors")
    code, _, err = cli("predict", "tinynet", "x.jpg")
    assert (code, "tiny/tinynet has no published weights" in err) == (2, True)
    Path("tinynet/checkpoints").mkdir()
    assert locate_model("tinynet", registry).path == Path("tinynet/model.safetensors")


def test_file_hides_no_backbone_unless_of_weights(tinynet):
    registry = load_registry()
    Path("tinynet").write_text("a log")
    assert locate_model("tinynet", registry) is None
    Path("tinynet.pth").write_text("")
    assert locate_model("tinynet.pth", registry).path == Path("tinynet.pth")


@pytest.mark.parametrize("name", ["none", "auto", "imagenet"])
def test_tag_is_no_folder_of_its_name(name):
    Path(name).mkdir()
    lite0 = zoo.get("lite0")
    assert locate_weights(name, lite0) is None
    with pytest.raises(zoo.WeightsError, match=f"{name}/model.safetensors does not exist"):
        lite0.build(classes=2, weights=Path(name))
