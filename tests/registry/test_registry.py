"""Lookup, precedence, filters, suggestions, aliases, catalogues."""

import ast
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest
from timm.models import list_models

import zoo
from tests.networks import FAILING_FAMILY
from zoo.records import to_dict
from zoo.registry.catalogue import catalogue_file, load_catalogue, restore_backbone
from zoo.registry.registry import load_registry
from zoo.spec import Family

ONE = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        for name in {names!r}:
            yield zoo.Backbone(
                name, "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32)
            )
"""


def test_bare_name_prefers_torchvision_over_timm():
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    assert zoo.get("timm/resnet18").heads[0].path == "fc"
    assert zoo.get("resnet18d").id == "timm/resnet18d"


def test_bare_name_prefers_builtin_over_third_party(install):
    install("aaa", ONE.format(names=["resnet18", "leafnet"]))
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    assert zoo.get("aaa/resnet18").id == "aaa/resnet18"
    assert zoo.get("leafnet").id == "aaa/leafnet"


def test_ambiguous_name_error_lists_ids(install):
    install("aaa", ONE.format(names=["leafnet"]))
    install("bbb", ONE.format(names=["leafnet"]))
    with pytest.raises(zoo.UsageError, match="aaa/leafnet, bbb/leafnet"):
        zoo.get("leafnet")
    assert zoo.get("bbb/leafnet").source == "bbb"


def test_unknown_name_has_suggestions():
    with pytest.raises(zoo.UnknownBackbone) as caught:
        zoo.get("resnet-18")
    assert caught.value.suggestions[0] == "resnet18"
    assert "did you mean resnet18" in str(caught.value)
    with pytest.raises(zoo.UnknownBackbone, match="torchvision/resnet18"):
        zoo.get("torchvison/resnet18")
    with pytest.raises(zoo.UnknownBackbone, match="zoo list"):
        zoo.get("qqqqqqqqqq")


def test_alias_resolves_to_backbone():
    assert zoo.get("efficientnet-lite0").id == "efficientnet_lite/lite0"
    targets = load_registry().config.aliases
    assert {zoo.get(alias).id for alias in targets} == set(targets.values())


def test_registry_is_cached_by_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet18"\n')
    merged = load_registry(["timm"], path)
    assert merged is load_registry(["timm"], str(path))
    assert merged.get("leaf").id == "house/leaf"
    assert list(merged.derived) == ["house"]
    assert "house" not in merged.sources
    assert not load_registry(["timm"]).derived
    assert [r.name for r, _ in merged.records()] == [r.name for r, _ in load_registry().records()]


SLOW = """
    import time
    import zoo

    CREATED = []

    @zoo.hookimpl
    def zoo_register_backbones():
        CREATED.append(1)
        time.sleep(0.2)
        yield zoo.Backbone("slow", "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32))
"""


def test_threads_share_one_registry(install):
    module = install("slow", SLOW)
    with ThreadPoolExecutor(4) as threads:
        registries = list(threads.map(lambda _: load_registry(), range(4)))
        found = list(threads.map(lambda each: each.get("slow/slow"), registries))
    assert len({id(registry) for registry in registries}) == 1
    assert len({id(backbone) for backbone in found}) == 1
    assert import_module(module).CREATED == [1]


def test_bare_name_prefers_plugin_over_derived(install, tmp_path):
    install("aaa", ONE.format(names=["leafnet"]))
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leafnet"]\nextends = "leafnet"\n')
    merged = load_registry(["timm"], path)
    assert merged.get("leafnet").id == "aaa/leafnet"
    assert merged.get("house/leafnet").plugin == "aaa"


def test_unknown_base_has_suggestions(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_PLUGINS")  # else a plugin that is switched off might have it
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet-18"\n')
    with pytest.raises(zoo.RegistryError, match=r"r\.toml, line 3: .*did you mean resnet18"):
        load_registry(file=path).get("leaf")


def test_list_backbones_filters():
    ids = [b.id for b in zoo.list_backbones("resnet18")]
    assert ids == ["torchvision/resnet18", "timm/resnet18"]
    assert all(b.id.startswith("timm/vit") for b in zoo.list_backbones("timm/vit*"))
    assert len(zoo.list_backbones(source="torchvision")) == 86
    assert all(not b.weights for b in zoo.list_backbones(pretrained=False))
    assert zoo.list_backbones(task="text-classification") == []
    with pytest.raises(zoo.UsageError, match="did you mean timm"):
        zoo.list_backbones(source="tim")


def test_builtin_sources_have_all_backbones():
    registry = load_registry()
    assert len(registry.sources["torchvision"]) == 86
    assert len(registry.sources["timm"]) == len(list_models())
    assert len({backbone.id for backbone in registry}) == len(registry)


def test_encoders_without_head_are_listed_and_refused():
    refused = [b for b in zoo.list_backbones() if b.refuse]
    assert "timm/mobilenetv5_300m_enc" in {b.id for b in refused}
    assert all(not b.heads for b in refused)
    with pytest.raises(zoo.UsageError, match="cannot be fine-tuned"):
        refused[0].build(classes=10)


def test_catalogue_is_cached_and_damage_detected(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    family = Family("zoo-efficientnet-lite", "zoo_efficientnet_lite.plugin:zoo_register_backbones")
    notices: list[str] = []
    first = load_catalogue(family, notices.append)
    assert set(first) == {"lite0", "lite1", "lite2"}
    assert len(notices) == 1
    path = catalogue_file(family)
    assert path.exists()
    assert load_catalogue(family, notices.append) == first
    assert len(notices) == 1
    whole = path.read_bytes()
    for damaged in (b"{ damaged", b"[]", b'{"x": {"name": "x"}}', b"", whole[:-1], whole + b" "):
        path.write_bytes(damaged)
        assert load_catalogue(family, notices.append) == first
        assert path.read_bytes() == whole


def test_catalogue_without_writable_cache_notifies(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    family = Family("zoo-efficientnet-lite", "zoo_efficientnet_lite.plugin:zoo_register_backbones")
    notices: list[str] = []
    assert set(load_catalogue(family, notices.append)) == {"lite0", "lite1", "lite2"}
    assert "not cached" in notices[-1]


def test_failing_family_is_recorded(install, caplog):
    install("fam", FAILING_FAMILY)
    with caplog.at_level(logging.WARNING, "zoo"):
        assert zoo.list_backbones("fam/*") == []
    failed = next(r for r in load_registry().host.records if r.name == "fam")
    assert failed.status == "failed"
    assert "of another time" in failed.error
    assert zoo.get("resnet18").id == "torchvision/resnet18"


def test_light_commands_import_no_torch(zoo_process):
    probe = (
        "import sys, zoo.cli as c\n"
        "try: c.main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = sorted({{'torch', 'torchvision', 'timm', 'numpy', 'PIL'}} & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    import subprocess
    import sys

    config = Path(os.environ["XDG_CONFIG_HOME"], "zoo", "registry.toml")
    config.parent.mkdir(parents=True)
    config.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet18"\n')
    for arguments in (["--help"], ["list"], ["show", "leaf"], ["plugins"], ["finetune", "-h"]):
        code = probe.format(arguments=arguments)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
        )
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.slow
def test_enumeration_ignores_current_folder(install, monkeypatch, tmp_path):
    install(
        "fam",
        """
        import zoo

        def enumerate_backbones():
            import timm.version
            print("zoo-catalogue: made with", timm.version)
            yield zoo.Backbone("leafnet", "torch.nn:Identity", (zoo.Head("fc"),),
                               zoo.Preprocess(size=32))
        """,
    )
    for name in ("timm", "json", "plugin_fam"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}-was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    family = Family("zoo-registry", "plugin_fam:enumerate_backbones")
    notices: list[str] = []
    assert set(load_catalogue(family, notices.append)) == {"leafnet"}
    assert len(notices) == 1
    assert not list(tmp_path.glob("*-was-run"))


def test_unreadable_catalogue_entry_fails_its_source_only(install, monkeypatch, caplog):
    install(
        "fam",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Family("zoo-registry", "plugin_fam:enumerate_backbones")

        def enumerate_backbones(): ...
        """,
    )
    real = load_catalogue

    def load(family, notify, computing=False):
        if family.distribution != "zoo-registry":
            return real(family, notify)
        return {"leafnet": {"name": "leafnet"}, "oaknet": {"name": "oaknet", "heads": 5}}

    monkeypatch.setattr("zoo.registry.backbone_sources.load_catalogue", load)
    with caplog.at_level(logging.WARNING, "zoo"):
        ids = [backbone.id for backbone in zoo.list_backbones()]
    assert "torchvision/resnet18" in ids
    assert "timm/resnet18" in ids
    assert not any(name.startswith("fam/") for name in ids)
    failed = next(r for r in load_registry().host.records if r.name == "fam")
    assert failed.status == "failed"
    assert "'leafnet'" in failed.error
    assert len([r for r in caplog.records if "fam" in r.getMessage()]) == 1
    with pytest.raises(zoo.BrokenPlugin, match="plugin that failed"):
        zoo.get("fam/oaknet")


def test_get_unreadable_catalogue_entry_raises_broken_plugin(install, monkeypatch):
    install("fam", ONE.format(names=["leafnet"]))
    monkeypatch.setattr("zoo.registry.registry.Source._entries", {"oaknet": {"heads": 5}})
    with pytest.raises(zoo.BrokenPlugin, match="'oaknet'"):
        zoo.get("fam/oaknet")
    failed = next(r for r in load_registry().host.records if r.name == "fam")
    assert failed.status == "failed"


def test_public_names_match_type_checking_imports():
    tree = ast.parse(Path(zoo.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        for alias in statement.names
    }
    assert sorted(typed) == sorted(zoo.__all__)
    for name in zoo._MODULES:
        assert typed.pop(name) == "zoo"
        assert getattr(zoo, name) is import_module(f"zoo.{name}")
    for name, home in typed.items():
        assert home in zoo._DEFINED_IN
        assert getattr(zoo, name) is getattr(import_module(home), name), name
    assert {"Busy", "plan"} <= set(zoo.__all__) <= set(dir(zoo))


def _validated_again(backbone):
    """Return a copy of which each field was validated."""
    weights = tuple(
        replace(item, preprocess=item.preprocess and replace(item.preprocess))
        for item in backbone.weights
    )
    heads = tuple(map(replace, backbone.heads))
    return replace(backbone, heads=heads, weights=weights, preprocess=replace(backbone.preprocess))


def test_restore_backbone_equals_validated_description():
    source = load_registry().sources["timm"]
    entries = source._entries
    assert len(entries) > 1000
    for name, plain in entries.items():
        restored = restore_backbone(plain)
        validated = _validated_again(restored)
        assert restored == validated, name
        assert to_dict(restored) == plain
        kinds = [type(getattr(restored, item.name)) for item in fields(restored)]
        assert kinds == [type(getattr(validated, item.name)) for item in fields(validated)]
    with pytest.raises(TypeError, match="cannot be changed"):
        restored.kwargs["name"] = "other"
