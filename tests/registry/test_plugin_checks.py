"""What can be known of a plugin at loading is reported at loading."""

import json

import pytest

import zoo
from zoo import hookspecs
from zoo.registry.registry import load_registry

BACKBONE = """
import zoo

@zoo.hookimpl
def zoo_register_backbones():
    yield zoo.Backbone("leafnet", "{builder}", (zoo.Head("fc"),), zoo.Preprocess(size=32))

def build(weights=None): ...
"""
FINE = BACKBONE.format(builder="plugin_leaf:build")
HOOKS = {
    "unmarked": ("def zoo_register_backbones(): ...", "defines zoo_register_backbones without @"),
    "unmarked_and_misspelt": (
        "def zoo_register_backbone(): ...",
        "which is no hook; did you mean zoo_register_backbones?",
    ),
    "marked_for_another": (
        "import pluggy\n@pluggy.HookimplMarker('other')\ndef zoo_after_fit(event): ...",
        "defines zoo_after_fit without @zoo.hookimpl",
    ),
    "none": ("NETWORKS = 3", "implements no hook"),
    "async": (
        "import zoo\n@zoo.hookimpl\nasync def zoo_after_fit(event): ...",
        "implements zoo_after_fit as an async function",
    ),
    "generator": (
        "import zoo\n@zoo.hookimpl\ndef zoo_after_fit(event): yield",
        "yields in zoo_after_fit, which would never run",
    ),
    "two_faults": (
        "import zoo\ndef zoo_after_fit(event): ...\n@zoo.hookimpl\ndef zoo_after_epok(event): ...",
        "without @zoo.hookimpl; it implements the unknown hook zoo_after_epok",
    ),
}
NAMED = {
    "plugin_leaf:bild": "plugin_leaf has no bild; did you mean build?",
    "plugin_leaf.model:build": "there is no module plugin_leaf.model",
}
CLASS = """
import zoo

class Leaf:
    @zoo.hookimpl
    def zoo_register_backbones(self):
        return [zoo.Backbone("leafnet", "a:b", (zoo.Head("fc"),), zoo.Preprocess(size=32))]

leaf = Leaf()
"""


def record(name="leaf"):
    return next(r for r in load_registry().host.records if r.name == name)


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_that_cannot_run_are_reported(install, kind):
    source, message = HOOKS[kind]
    install("leaf", source)
    assert record().status == "failed"
    assert message in record().error


def test_functions_with_own_names_are_no_hooks(install):
    helper = "\ndef zoo_leaf_helper(): ...\nfrom zoo.hookspecs import zoo_after_fit\n"
    wrapper = "@zoo.hookimpl(wrapper=True)\ndef zoo_after_epoch(event): return (yield)\n"
    renamed = "@zoo.hookimpl(specname='zoo_on_error')\ndef zoo_on_errors(event): ...\n"
    install("leaf", FINE + helper + wrapper + renamed)
    assert (record().status, record().error) == ("ok", None)


@pytest.mark.parametrize("builder", NAMED)
def test_missing_builder_in_own_package_is_reported(install, builder):
    install("leaf", BACKBONE.format(builder=builder))
    assert record().status == "failed"
    assert NAMED[builder] in record().error


def test_code_of_other_packages_is_not_imported(install):
    install("leaf", BACKBONE.format(builder="no_such_library.model:build"))
    assert record().status == "ok"


def test_malformed_builder_is_reported_at_loading(install, zoo_process):
    install("leaf", BACKBONE.format(builder="plugin_leaf.build"))
    shown = zoo_process("show", "leaf/leafnet")
    assert shown.returncode == 5
    assert 'write it as "package.module:function"' in shown.stderr


def test_object_of_entry_point_is_registered(install):
    install("leaf", CLASS, point="plugin_leaf:leaf [extra]")
    assert zoo.get("leafnet").id == "leaf/leafnet"


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("plugin_leaf:oak", "and plugin_leaf has no oak"),
        ("plugin_leaf:Leaf", "is the class Leaf, whose zoo_register_backbones needs an instance"),
    ],
)
def test_unusable_object_of_entry_point_is_reported(install, point, message):
    install("leaf", CLASS, point=point)
    assert record().status == "failed"
    assert message in record().error


def test_second_plugin_of_one_module_leaves_first(install):
    install("leaf", FINE)
    install("oak", FINE, package="plugin-oak", point="plugin_leaf")
    assert (record("leaf").status, record("oak").status) == ("ok", "failed")
    assert zoo.get("leafnet").id == "leaf/leafnet"


@pytest.mark.parametrize("name", ["two words", "a/b", "-leaf"])
def test_name_that_no_id_contains_is_reported(install, name):
    install(name, FINE, package="plugin-leaf")
    assert record(name).status == "failed"
    assert "has a name that no id can contain; rename its entry point" in record(name).error


@pytest.mark.parametrize(
    ("requirement", "status"),
    [
        ("zoo-registry>=99", "failed"),
        ("zoo_registry (>=99)", "failed"),
        ("Zoo.Registry<0.1", "failed"),
        ("zoo-registry>=0.1,<0.1.0", "failed"),
        ("zoo-registry==99.*; python_version > '3'", "failed"),
        ("zoo-registry>=99; extra == 'new'", "ok"),
        ("zoo-registry>=0.1.0,<99", "ok"),
        ("zoo-registry~=0.1", "ok"),
        ("zoo-registry", "ok"),
        ("zoo-registry-extras>=99", "ok"),
    ],
)
def test_required_version_of_zoo_is_checked(install, requirement, status):
    install("leaf", FINE, requires=f"Requires-Dist: {requirement}\n")
    assert record().status == status
    assert status == "ok" or f"requires {requirement}, and zoo-registry" in record().error


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (hookspecs.INTERFACE, None),
        ("99.0", "install a newer zoo-registry"),
        ("1.99", "install a newer zoo-registry"),
        ("0.9", "install a newer version of the plugin"),
        (1.0, f"which is no version; write it like {hookspecs.INTERFACE!r}"),
    ],
)
def test_stated_interface_is_checked(install, stated, message):
    install("leaf", f"{FINE}\nZOO_INTERFACE = {stated!r}")
    assert record().status == ("failed" if message else "ok")
    assert message is None or message in record().error


def test_conflict_has_no_backbones_of_its_owner(install):
    install("leaf", FINE)
    install("leaf", FINE, package="plugin-other")
    rows = [(r.status, count) for r, count in load_registry().records() if r.name == "leaf"]
    assert rows == [("ok", 1), ("conflict", 0)]


def test_source_of_failed_plugin_exits_with_5(install, zoo_process):
    install("leaf", "import no_such_module")
    assert zoo_process("list", "--source", "leaf").returncode == 5
    listed = zoo_process("list", "lite0", "--json")
    assert (listed.returncode, len(json.loads(listed.stdout))) == (0, 1)
    with pytest.raises(zoo.UsageError, match="'leaf' is switched off"):
        load_registry(["leaf"]).find(source="leaf")
