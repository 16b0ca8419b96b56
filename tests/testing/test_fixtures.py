"""The fixture `zoo_isolated` and `reset_caches`."""

import json
import logging
import shutil
import subprocess
import sys
import types
from importlib.metadata import entry_points

import pytest
from torch import nn

import zoo
from zoo.cli import _run
from zoo.cli.group import Settings
from zoo.registry.plugin_scope import current
from zoo.registry.registry import load_registry
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.testing.fixtures import reset_caches


class Leaves:
    """A plugin object whose methods are hooks."""

    def __init__(self, *names):
        self.names = names
        self.epochs = []

    @zoo.hookimpl
    def zoo_register_backbones(self):
        for name in self.names:
            yield zoo.Backbone(name, f"{__name__}:build", (zoo.Head("4"),), zoo.Preprocess(size=32))

    @zoo.hookimpl
    def zoo_after_epoch(self, event):
        self.epochs.append(event.epoch)


def build(weights=None):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_isolated_ignores_installed_plugins(install, zoo_isolated, monkeypatch, capsys):
    install("bad", "open('was-run', 'w'); raise RuntimeError")
    monkeypatch.chdir(zoo_isolated.cache.parent.parent)
    assert [point.name for point in entry_points(group="zoo", name="bad")] == ["bad"]
    assert [record.name for record in zoo_isolated.records] == ["tasks"]
    assert zoo.list_backbones() == []
    assert load_registry(plugins=[]).host.records == zoo_isolated.records
    for name in ("resnet18", "timm/resnet18", "lite0", "efficientnet-lite0"):
        with pytest.raises(zoo.UnknownBackbone):
            zoo.get(name)
    assert _run(["plugins", "--json"], Settings()) == 0
    assert [plugin["name"] for plugin in json.loads(capsys.readouterr().out)] == ["tasks"]
    assert not list(zoo_isolated.cache.parent.parent.glob("was-run"))


def test_isolated_has_own_cache_and_config(zoo_isolated, shared_cache):
    from zoo.files import cache_dir, config_dir

    assert cache_dir() == zoo_isolated.cache != shared_cache / "zoo"
    zoo_isolated.config.mkdir(parents=True)
    file = zoo_isolated.config / "registry.toml"
    file.write_text('schema = 1\n[aliases]\nleaf = "leaves/leafnet"\n')
    assert config_dir() == zoo_isolated.config
    zoo_isolated.register(Leaves("leafnet"), "leaves")
    assert zoo.get("leaf").id == "leaves/leafnet"


def test_registered_plugin_trains_and_receives_hooks(zoo_isolated, tmp_path):
    leaves = Leaves("leafnet", "oaknet")
    record = zoo_isolated.register(leaves, "leaves")
    assert (record.name, record.status, record.distribution) == ("leaves", "ok", "given")
    assert record.hooks == ("zoo_after_epoch", "zoo_register_backbones")
    assert zoo_isolated.get("leafnet") == zoo.get("leaves/leafnet")
    assert zoo.get("leafnet").origin == "plugin leaves (given)"
    assert [b.id for b in zoo.list_backbones()] == ["leaves/leafnet", "leaves/oaknet"]
    for name in ("flag", "mammal"):
        target = tmp_path / "photos" / name
        target.mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:6]:
            shutil.copyfile(path, target / path.name)
    options = {"data": tmp_path / "photos", "out": tmp_path / "run", "weights": "none"}
    run = zoo.finetune("leafnet", epochs=2, device="cpu", **options)
    assert leaves.epochs == [1, 2]
    assert zoo.load(run.path, "cpu").backbone == "leaves/leafnet"


def test_register_validates_like_installed_plugins(zoo_isolated, caplog):
    class Junk:
        @zoo.hookimpl
        def zoo_register_backbone(self):
            return []

    with caplog.at_level(logging.WARNING, "zoo"):
        record = zoo_isolated.register(Junk(), "junk")
    assert record.status == "failed"
    assert "did you mean zoo_register_backbones" in record.error
    assert caplog.text.count("plugin 'junk' (given) is left out") == 1
    assert zoo_isolated.register("no_such_module.plugin").error.startswith("ModuleNotFoundError")
    assert zoo_isolated.register(Leaves("leafnet"), "leaves").status == "ok"
    again = zoo_isolated.register(Leaves("oaknet"), "leaves")
    assert (again.status, [r.status for r in zoo_isolated.records].count("ok")) == ("conflict", 2)
    with pytest.raises(zoo.BrokenPlugin, match="did you mean"):
        zoo.get("junk/leafnet")
    with pytest.raises(TypeError, match="needs a name"):
        zoo_isolated.register(Leaves("leafnet"))


def test_register_module_by_object_or_name(zoo_isolated, install):
    module = install("leaf", "import zoo\n\n@zoo.hookimpl\ndef zoo_after_fit(event): ...\n")
    record = zoo_isolated.register(module, "named")
    assert (record.name, record.module, record.hooks) == ("named", module, ("zoo_after_fit",))
    own = types.ModuleType("leafnet.plugin")
    own.zoo_register_backbones = zoo.hookimpl(lambda: Leaves("leafnet").zoo_register_backbones())
    own.zoo_register_backbones.__name__ = "zoo_register_backbones"
    assert zoo_isolated.register(own).name == "leafnet"
    assert zoo.get("leafnet").id == "leafnet/leafnet"


def test_isolated_honours_strict_and_plugin_selection(zoo_isolated, monkeypatch):
    zoo_isolated.register(Leaves("leafnet"), "leaves")
    assert load_registry(["leaves"]).host.records[-1].status == "off"
    monkeypatch.setenv("ZOO_PLUGINS", "")
    assert zoo.get("leafnet").source == "leaves"
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(zoo.BrokenPlugin, match="no_such_module"):
        zoo_isolated.register("no_such_module")


def test_register_builtins_by_name(zoo_isolated):
    zoo_isolated.register(Leaves("resnet18"), "leaves")
    zoo_isolated.register_builtins("torchvision")
    assert [r.name for r in zoo_isolated.records] == ["tasks", "leaves", "torchvision"]
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    with pytest.raises(zoo.UsageError, match="'tim' is not built in"):
        zoo_isolated.register_builtins("tim")


def test_isolated_scope_leaves_outer_registries(request):
    before = load_registry()
    outer = current()
    isolated = request.getfixturevalue("zoo_isolated")
    assert current() is not outer
    assert isolated.registry is load_registry() is not before
    assert outer.registries


def test_reset_caches_reloads_registry_config_and_notices(plugin_file, caplog):
    from zoo.models.license_notice import warn_license_once
    from zoo.registry.config import load_config

    file = plugin_file("zoo_reset_file", "import zoo\n")
    before, config = load_registry(plugins=[file]), load_config()
    module = sys.modules["zoo_reset_file"]
    for attempt in (1, 2):
        caplog.clear()
        for _ in range(2):
            warn_license_once("CC-BY-NC-4.0", "the weights of leafnet are")
        assert len(caplog.messages) == 1, attempt
        reset_caches()
    assert load_registry(plugins=[file]) is not before
    assert load_config() is not config
    assert sys.modules["zoo_reset_file"] is not module


def test_fixture_available_in_plugin_test_run(tmp_path):
    (tmp_path / "leafplugin.py").write_text(
        "import zoo\n"
        "@zoo.hookimpl\n"
        "def zoo_register_backbones():\n"
        "    yield zoo.Backbone('leafnet', 'torch.nn:Identity', (zoo.Head('fc'),),\n"
        "                       zoo.Preprocess(size=32))\n"
    )
    (tmp_path / "test_leaf.py").write_text(
        "import sys\n"
        "import zoo\n"
        "def test_it_registers(zoo_isolated):\n"
        "    assert zoo_isolated.register('leafplugin', 'leaf').status == 'ok'\n"
        "    assert zoo.get('leafnet').id == 'leaf/leafnet'\n"
        "    assert [b.id for b in zoo.list_backbones()] == ['leaf/leafnet']\n"
        "def test_others_see_what_is_installed():\n"
        "    assert zoo.get('lite0').id == 'efficientnet_lite/lite0'\n"
        "    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_fixtures_import_is_light():
    heavy = "{'torch', 'numpy', 'click', 'pluggy', 'zoo.registry.registry', 'zoo.spec'}"
    probe = (
        "import sys, pytest; before = set(sys.modules); import zoo.testing.fixtures\n"
        f"assert not {heavy} & (set(sys.modules) - before), set(sys.modules) - before\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
