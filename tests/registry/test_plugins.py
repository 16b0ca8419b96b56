"""Installed plugins: every failure is recorded with its plugin."""

import json
import logging

import pytest

import zoo
from zoo.registry.registry import load_registry

GOOD = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone(
            name="{name}",
            builder="torch.nn:Identity",
            heads=(zoo.Head("fc"),),
            preprocess=zoo.Preprocess(size=32),
        )
"""
BAD = {
    "fails_to_import": ("import no_such_module", "ModuleNotFoundError"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    # As a native extension in Rust does, and asyncio where a task is cancelled.
    "panics": ("raise type('Panic', (BaseException,), {})('no leaf')", "Panic: no leaf"),
    "panics_in_a_hook": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            raise type("Panic", (BaseException,), {})("no leaf")
        """,
        "in zoo_register_backbones: Panic: no leaf",
    ),
    "raises": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            raise RuntimeError("no leaf today")
            yield
        """,
        "no leaf today",
    ),
    "returns_junk": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            return [42]
        """,
        "registered int 42",
    ),
    "returns_no_list": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            return None
        """,
        "in zoo_register_backbones: it returned None, not an iterable",
    ),
    "misspells": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbone():
            return []
        """,
        "did you mean zoo_register_backbones",
    ),
    "wrong_arguments": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_after_epoch(events):
            return None
        """,
        "events",
    ),
    "same_twice": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            for _ in range(2):
                yield zoo.Backbone("twin", "torch.nn:Identity", (zoo.Head("fc"),),
                                   zoo.Preprocess(size=32))
        """,
        "'twin' twice",
    ),
    "junk_fields": (
        """
        import zoo
        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("junk", "torch.nn:Identity", ("fc",), zoo.Preprocess(size=32),
                               params="5M")
        """,
        "heads must be tuple[Head, ...], not ('fc',)",
    ),
}


def record(name):
    return next(r for r in load_registry().host.records if r.name == name)


def test_plugin_registers_backbone(install):
    install("leaf", GOOD.format(name="leafnet"))
    backbone = zoo.get("leafnet")
    assert (backbone.id, backbone.source, backbone.plugin) == ("leaf/leafnet", "leaf", "leaf")
    assert zoo.get("leaf/leafnet") == backbone


@pytest.mark.parametrize("kind", BAD)
def test_failing_plugin_is_recorded_and_isolated(install, kind, caplog):
    source, message = BAD[kind]
    install("bad", source)
    install("leaf", GOOD.format(name="leafnet"))
    with caplog.at_level(logging.WARNING, "zoo"):
        assert zoo.get("leafnet").id == "leaf/leafnet"
    assert record("bad").status == "failed"
    assert message in record("bad").error
    assert "\n" not in record("bad").error
    assert "Traceback" in record("bad").trace
    warnings = [r.getMessage() for r in caplog.records if "bad" in r.getMessage()]
    assert len(warnings) == 1


def test_strict_raises_error_of_plugin(install, monkeypatch):
    install("bad", "import no_such_module")
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(zoo.BrokenPlugin, match="no_such_module"):
        load_registry()


def test_duplicate_plugin_name_is_a_conflict(install):
    install("leaf", GOOD.format(name="leafnet"), package="aaa-first")
    install("leaf", GOOD.format(name="othernet"), package="bbb-second")
    first, second = (r for r in load_registry().host.records if r.name == "leaf")
    assert (first.status, second.status) == ("ok", "conflict")
    assert "aaa-first" in second.error
    assert zoo.get("leafnet").id == "leaf/leafnet"


def test_builtin_plugin_name_is_reserved(install):
    install("torchvision", GOOD.format(name="leafnet"))
    assert [r.status for r in load_registry().host.records if r.name == "torchvision"] == [
        "ok",
        "conflict",
    ]


def test_switches_exclude_plugins(install, monkeypatch):
    install("leaf", GOOD.format(name="leafnet"))
    install("bad", "raise RuntimeError")
    records = {r.name: r.status for r in load_registry(["bad", "timm"]).host.records}
    assert records["bad"] == records["timm"] == "off"
    assert records["leaf"] == "ok"
    monkeypatch.setenv("ZOO_PLUGINS", "")
    off = {r.name: r.status for r in load_registry().host.records}
    assert off["leaf"] == off["bad"] == off["efficientnet_lite"] == "off"
    assert off["torchvision"] == off["timm"] == "ok"
    monkeypatch.setenv("ZOO_PLUGINS", "leaf")
    assert zoo.get("leafnet").id == "leaf/leafnet"
    monkeypatch.setenv("ZOO_PLUGINS", "-leaf, - timm")
    but = {r.name: r.status for r in load_registry(["bad"]).host.records}
    assert but["leaf"] == but["timm"] == but["bad"] == "off"
    assert but["efficientnet_lite"] == but["torchvision"] == but["tensorboard"] == "ok"
    monkeypatch.setenv("ZOO_PLUGINS", "leaf,-timm")
    both = {r.name: r.status for r in load_registry().host.records}
    assert both["leaf"] == both["torchvision"] == "ok"
    assert both["timm"] == both["efficientnet_lite"] == both["bad"] == "off"


def test_switch_with_unknown_plugin_suggests_nearest(monkeypatch):
    with pytest.raises(zoo.UsageError, match="did you mean timm"):
        load_registry(["tim"])
    monkeypatch.setenv("ZOO_PLUGINS", "-tim")
    with pytest.raises(zoo.UsageError, match="ZOO_PLUGINS: no plugin is named 'tim'"):
        load_registry()


def test_failing_plugin_does_not_affect_commands(install, zoo_process):
    install("bad", "import sys; sys.exit(3)")
    listed = zoo_process("list", "lite0", "--json")
    assert listed.returncode == 0
    assert [b["id"] for b in json.loads(listed.stdout)] == ["efficientnet_lite/lite0"]
    assert listed.stderr.count("\n") == 1
    assert "SystemExit: 3" in listed.stderr
    plugins = zoo_process("plugins", "--json")
    assert plugins.returncode == 0
    bad = next(p for p in json.loads(plugins.stdout) if p["name"] == "bad")
    assert (bad["status"], bad["backbones"]) == ("failed", 0)
    asked = zoo_process("show", "bad/leafnet")
    assert asked.returncode == 5
    assert "SystemExit: 3" in asked.stderr.splitlines()[-1]
    switched = zoo_process("list", "lite0", "--no-plugin", "bad")
    assert "bad" not in switched.stderr


def test_output_of_plugins_goes_to_stderr(install, zoo_process):
    install(
        "chatty",
        """
        import zoo
        print("imported")

        @zoo.hookimpl
        def zoo_register_backbones():
            print("asked")
            return []
        """,
    )
    listed = zoo_process("list", "lite0", "--json")
    assert [b["id"] for b in json.loads(listed.stdout)] == ["efficientnet_lite/lite0"]
    assert "imported\nasked\n" in listed.stderr
