"""Plugins in a single python file: their names, isolation and caching."""

import logging
import sys

import pytest

import zoo
from zoo.registry.catalogue import catalogue_file
from zoo.registry.registry import load_registry

LEAF = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("{name}", "{stem}:build", (zoo.Head("1"),), zoo.Preprocess(size=32))

    def build(weights=None):
        from torch import nn
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
"""
FAMILY = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Family("zoo-registry", "{stem}:enumerate_backbones")

    def enumerate_backbones():
        for number in range({count}):
            yield zoo.Backbone(
                f"fam{{number}}", "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32)
            )
"""


def leaf(plugin_file, stem="zoo_leaf_file", name="leafnet"):
    return plugin_file(stem, LEAF.format(stem=stem, name=name))


def named(registry, name):
    return [record for record in registry.host.records if record.name == name]


def test_plugin_file_registers_and_builds_backbone(plugin_file):
    file = leaf(plugin_file)
    before = list(sys.path)
    registry = load_registry(plugins=[file])
    backbone = registry.get("leafnet")
    assert (backbone.id, backbone.plugin) == ("zoo_leaf_file/leafnet", "zoo_leaf_file")
    assert backbone.origin == f"plugin zoo_leaf_file (file {file})"
    assert backbone.build(classes=2)[1].out_features == 2
    (record,) = named(registry, "zoo_leaf_file")
    assert (record.status, record.distribution, record.version) == ("ok", "file", "-")
    assert (record.module, record.file) == ("zoo_leaf_file", file)
    assert sys.path == before
    with pytest.raises(zoo.UnknownBackbone):
        zoo.get("leafnet")


def test_registries_are_cached_by_plugin_files(plugin_file, monkeypatch):
    file, other = leaf(plugin_file), leaf(plugin_file, "zoo_oak_file", "oaknet")
    registry = load_registry(plugins=[file])
    monkeypatch.chdir(file.parent)
    assert load_registry(plugins=[file.name, file]) is registry
    both = load_registry(["timm"], plugins=[file, other])
    assert both is not registry
    assert {b.id for b in both.find(["leafnet", "oaknet"])} == {
        "zoo_leaf_file/leafnet",
        "zoo_oak_file/oaknet",
    }
    module = sys.modules["zoo_leaf_file"]
    assert {id(r.host.manager.get_plugin("zoo_leaf_file")) for r in (registry, both)} == {
        id(module)
    }


def test_plugin_name_drops_leading_underscores(plugin_file):
    registry = load_registry(plugins=[leaf(plugin_file, "_zoo_leaf_file")])
    assert registry.get("leafnet").id == "zoo_leaf_file/leafnet"


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("json", "would hide the module 'json'"),
        ("sys", r"would hide the module 'sys' \(a part of Python\)"),
        ("torch", "would hide the module 'torch'"),
        ("zoo", "would hide the module 'zoo'"),
        ("two words", "not a module name"),
        ("leaf-net", "not a module name"),
        ("2leaf", "not a module name"),
        ("class", "not a module name"),
        ("__", "not a module name"),
    ],
)
def test_invalid_stem_is_refused(plugin_file, stem, message):
    file = plugin_file(stem, "raise AssertionError('never run')")
    with pytest.raises(zoo.UsageError, match=message) as caught:
        load_registry(plugins=[file])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_file_path_is_refused(plugin_file, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for path, message in (
        ("gone.py", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "notes.txt", "not a python file"),
    ):
        with pytest.raises(zoo.UsageError, match=message):
            load_registry(plugins=[path])


def test_second_file_with_loaded_stem_is_refused(plugin_file, tmp_path):
    file = leaf(plugin_file)
    load_registry(plugins=[file])
    other = tmp_path / "elsewhere" / file.name
    other.parent.mkdir()
    other.write_text(file.read_text())
    with pytest.raises(zoo.UsageError, match="would hide the module 'zoo_leaf_file'") as caught:
        load_registry(plugins=[other])
    assert str(file) in str(caught.value)


def test_plugin_file_also_on_sys_path_is_accepted(plugin_file, monkeypatch):
    file = leaf(plugin_file)
    monkeypatch.syspath_prepend(str(file.parent))
    assert load_registry(plugins=[file]).get("leafnet").id == "zoo_leaf_file/leafnet"


def test_failing_file_is_recorded_and_removed_from_modules(plugin_file, caplog):
    bad = plugin_file("zoo_bad_file", "import no_such_module")
    good = leaf(plugin_file)
    with caplog.at_level(logging.WARNING, "zoo"):
        registry = load_registry(plugins=[bad, good])
    assert registry.get("leafnet").source == "zoo_leaf_file"
    (record,) = named(registry, "zoo_bad_file")
    assert record.status == "failed"
    assert "no_such_module" in record.error
    assert 'zoo_bad_file.py", line 1' in record.trace
    assert "zoo_bad_file" not in sys.modules
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning.startswith(f"plugin 'zoo_bad_file' (file {bad}) is left out: ")
    with pytest.raises(zoo.BrokenPlugin, match="no_such_module"):
        registry.get("zoo_bad_file/leafnet")


def test_folder_of_file_is_not_on_sys_path(plugin_file):
    plugin_file("zoo_leaf_helper", "")
    registry = load_registry(plugins=[plugin_file("zoo_leaf_file", "import zoo_leaf_helper")])
    (record,) = named(registry, "zoo_leaf_file")
    assert "No module named 'zoo_leaf_helper'" in record.error


def test_plugin_file_name_conflicts(install, plugin_file, tmp_path):
    hook = "import zoo\n@zoo.hookimpl\ndef zoo_after_fit(event): ..."
    install("zoo_leaf_file", hook, package="leaf-dist")
    file = leaf(plugin_file)
    first, second = named(load_registry(plugins=[file]), "zoo_leaf_file")
    assert (first.distribution, first.status) == ("leaf-dist", "ok")
    assert (second.distribution, second.status) == ("file", "conflict")
    assert second.error == "the name 'zoo_leaf_file' is already taken by leaf-dist"
    one, two = leaf(plugin_file, "zoo_oak_file"), tmp_path / "zoo_oak_file.py"
    two.write_text(one.read_text())
    _, second = named(load_registry(plugins=[one, two]), "zoo_oak_file")
    assert second.error == f"the name 'zoo_oak_file' is already taken by file {one}"


def test_plugin_file_obeys_switches(plugin_file, monkeypatch):
    file = leaf(plugin_file)
    (record,) = named(load_registry(["zoo_leaf_file"], plugins=[file]), "zoo_leaf_file")
    assert record.status == "off"
    monkeypatch.setenv("ZOO_PLUGINS", "")
    registry = load_registry(plugins=[file])
    assert registry.get("leafnet").source == "zoo_leaf_file"
    assert named(registry, "efficientnet_lite")[0].status == "off"
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(zoo.BrokenPlugin, match="no_such_module"):
        load_registry(plugins=[plugin_file("zoo_bad_file", "import no_such_module")])


def test_family_in_plugin_file_is_enumerated(plugin_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = plugin_file("zoo_fam_file", FAMILY.format(stem="zoo_fam_file", count=3))
    registry = load_registry(["timm"], plugins=[file])
    assert [b.id for b in registry.find(source="zoo_fam_file")] == [
        f"zoo_fam_file/fam{number}" for number in range(3)
    ]
    (cached,) = (tmp_path / "cache" / "zoo" / "catalogues").iterdir()
    family = named(registry, "zoo_fam_file")[0].backbones[0]
    assert catalogue_file(family) == cached
    # Another content has another catalogue, for the same library version.
    file.write_text(file.read_text() + "# more\n")
    assert catalogue_file(family) != cached


def test_failing_family_in_plugin_file_is_recorded(plugin_file):
    source = FAMILY.format(stem="zoo_fam_file", count="no_such_number")
    registry = load_registry(["timm"], plugins=[plugin_file("zoo_fam_file", source)])
    assert len(registry.find(["lite*"])) == 3
    with pytest.raises(zoo.BrokenPlugin, match="no_such_number"):
        registry.find(source="zoo_fam_file")
    (record,) = named(registry, "zoo_fam_file")
    assert (record.status, "no_such_number" in record.error) == ("failed", True)
