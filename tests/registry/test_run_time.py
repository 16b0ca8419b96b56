"""Plugins, registry files and backbones that a process selects and registers at run time."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from torch import nn

import zoo

NOTEBOOK = """
    import sys
    import torch
    import zoo
    from torch import nn

    assert "timm" not in sys.modules

    def build(weights=None, width=4):
        return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(width, 5))

    leafnet = zoo.Backbone("leafnet", "__main__:build", (zoo.Head("3"),), zoo.Preprocess(32))
    leafnet = zoo.register(leafnet)
    run = zoo.finetune(leafnet, data=sys.argv[1], weights="none", train="all", epochs=1,
                       device="cpu", out="run")
    print(leafnet.id, zoo.get("leafnet") == leafnet, run.model().backbone)
    print(zoo.predict(run.path, sys.argv[2])[0]["predictions"][0]["class"] in run.model().classes)
"""


def build(weights=None):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def described(name="leafnet", **changes):
    heads, preprocess = (zoo.Head("3"),), zoo.Preprocess(32)
    return zoo.Backbone(name, f"{__name__}:build", heads, preprocess, **changes)


@pytest.mark.slow
def test_backbone_of_a_script_is_trained_and_loaded(tmp_path, image_folder):
    script = tmp_path / "notebook.py"
    script.write_text(textwrap.dedent(NOTEBOOK))
    image = next((image_folder / "val" / "flag").iterdir())
    command = [sys.executable, str(script), str(image_folder), str(image)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["local/leafnet", "True", "local/leafnet", "True"], done.stderr
    with pytest.raises(zoo.UnknownBackbone, match=r"zoo\.configure\(plugins=\[FILE\]\)"):
        zoo.load(tmp_path / "run")


def test_registering_again_replaces_of_one_name_only():
    first = zoo.register(described())
    other = zoo.register(described("oaknet"), source="leaf")
    assert (first.id, other.id) == ("local/leafnet", "leaf/oaknet")
    again = zoo.register(described(params=152))
    zoo.register(described("elmnet"))
    assert zoo.get("leafnet") == again != first
    assert {b.id for b in zoo.list_backbones("local/*", "leaf/*")} == {
        "local/leafnet",
        "local/elmnet",
        "leaf/oaknet",
    }
    assert len(list(again.build(classes=2).parameters())) == 4


def test_wrong_registrations_are_refused_and_undone(image_folder):
    missing = replace(described(), builder=f"{__name__}:bild")
    with pytest.raises(zoo.BrokenPlugin, match=r"'leafnet' names .*:bild', which cannot"):
        zoo.register(missing)
    with pytest.raises(zoo.UsageError, match="'timm' is already taken"):
        zoo.register(described(), source="timm")
    with pytest.raises(zoo.UnknownBackbone):
        zoo.get("leafnet")
    with pytest.raises(zoo.UsageError, match="a int cannot be registered"):
        zoo.register(5)
    with pytest.raises(zoo.UsageError, match=r"leafnet is not registered; .* zoo\.register"):
        zoo.plan(described(), data=image_folder)
    assert {record.status for record in zoo.list_plugins() if record.name == "timm"} == {"ok"}


class Watcher:
    def __init__(self):
        self.epochs = []

    @zoo.hookimpl
    def zoo_after_epoch(self, event):
        self.epochs.append(event.epoch)


def test_object_with_hooks_observes_a_training(tinynet, image_folder, tmp_path):
    watcher = Watcher()
    record = zoo.register_plugin(watcher)
    assert (record.name, record.status, record.hooks) == ("watcher", "ok", ("zoo_after_epoch",))
    zoo.finetune(
        tinynet, data=image_folder, weights="none", train="head", epochs=2, out=tmp_path / "run"
    )
    assert watcher.epochs == [1, 2]
    with pytest.raises(zoo.BrokenPlugin, match="implements no hook"):
        zoo.register_plugin(object(), "nothing")


def test_configure_selects_files_until_the_next_call(plugin_file, tmp_path, cli):
    source = f"""
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("elm", "{__name__}:build", (zoo.Head("3"),), zoo.Preprocess(32))
    """
    toml = tmp_path / "registry.toml"
    toml.write_text('schema = 1\n[aliases]\nours = "elms/elm"\n')
    zoo.configure(plugins=plugin_file("elms", source), registry=toml, without="torchvision")
    assert zoo.get("ours").id == "elms/elm"
    assert zoo.get("resnet18").source == "timm"
    assert {r.name: r.status for r in zoo.list_plugins()}["torchvision"] == "off"
    with pytest.raises(zoo.UsageError, match=r"^without: no plugin is named 'timn'"):
        zoo.configure(without=["timn"])
    assert zoo.get("ours").id == "elms/elm"
    zoo.configure()
    with pytest.raises(zoo.UnknownBackbone):
        zoo.get("ours")
    assert zoo.get("resnet18").source == "torchvision"
