"""Look-up, precedence, filters, suggestions, aliases, catalogues."""

import ast
import logging
import os
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest

import zoo
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


def test_bare_name_is_torchvisions_before_timms():
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    assert zoo.get("timm/resnet18").heads[0].path == "fc"
    assert zoo.get("resnet18d").id == "timm/resnet18d"


def test_a_third_party_never_takes_a_builtins_bare_name(install):
    install("aaa", ONE.format(names=["resnet18", "leafnet"]))
    assert zoo.get("resnet18").id == "torchvision/resnet18"
    assert zoo.get("aaa/resnet18").id == "aaa/resnet18"
    assert zoo.get("leafnet").id == "aaa/leafnet"


def test_an_ambiguous_name_names_both(install):
    install("aaa", ONE.format(names=["leafnet"]))
    install("bbb", ONE.format(names=["leafnet"]))
    with pytest.raises(zoo.UsageError, match="aaa/leafnet, bbb/leafnet"):
        zoo.get("leafnet")
    assert zoo.get("bbb/leafnet").source == "bbb"


def test_unknown_names_come_with_suggestions():
    with pytest.raises(zoo.UnknownBackbone) as caught:
        zoo.get("resnet-18")
    assert caught.value.suggestions[0] == "resnet18"
    assert "did you mean resnet18" in str(caught.value)
    with pytest.raises(zoo.UnknownBackbone, match="torchvision/resnet18"):
        zoo.get("torchvison/resnet18")
    with pytest.raises(zoo.UnknownBackbone, match="zoo list"):
        zoo.get("qqqqqqqqqq")


def test_aliases():
    assert zoo.get("efficientnet-lite0").id == "efficientnet_lite/lite0"
    targets = load_registry().config.aliases
    assert {zoo.get(alias).id for alias in targets} == set(targets.values())


def test_a_file_makes_a_registry_of_its_own(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet18"\n')
    laid = load_registry(["timm"], path)
    assert laid is load_registry(["timm"], str(path))
    assert laid.get("leaf").id == "house/leaf"
    assert list(laid.derived) == ["house"]
    assert "house" not in laid.sources
    assert not load_registry(["timm"]).derived
    assert [r.name for r, _ in laid.records()] == [r.name for r, _ in load_registry().records()]


def test_a_plugins_bare_name_stands_before_a_derived_one(install, tmp_path):
    install("aaa", ONE.format(names=["leafnet"]))
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leafnet"]\nextends = "leafnet"\n')
    laid = load_registry(["timm"], path)
    assert laid.get("leafnet").id == "aaa/leafnet"
    assert laid.get("house/leafnet").plugin == "aaa"


def test_an_unknown_base_comes_with_suggestions(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_PLUGINS")  # else it may be of a plugin that is switched off
    path = tmp_path / "r.toml"
    path.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet-18"\n')
    with pytest.raises(zoo.RegistryError, match=r"r\.toml, line 3: .*did you mean resnet18"):
        load_registry(file=path).get("leaf")


def test_filters():
    ids = [b.id for b in zoo.list_backbones("resnet18")]
    assert ids == ["torchvision/resnet18", "timm/resnet18"]
    assert all(b.id.startswith("timm/vit") for b in zoo.list_backbones("timm/vit*"))
    assert len(zoo.list_backbones(source="torchvision")) == 80
    assert all(not b.weights for b in zoo.list_backbones(pretrained=False))
    assert zoo.list_backbones(task="text-classification") == []
    with pytest.raises(zoo.UsageError, match="did you mean timm"):
        zoo.list_backbones(source="tim")


def test_all_built_in_backbones_are_there():
    registry = load_registry()
    assert len(registry.sources["torchvision"]) == 80
    assert len(registry.sources["timm"]) == 1371
    assert len({backbone.id for backbone in registry}) == len(registry)


def test_encoders_without_a_head_are_listed_and_refused():
    refused = [b for b in zoo.list_backbones() if b.refuse]
    assert len(refused) == 7
    with pytest.raises(zoo.UsageError, match="cannot be fine-tuned"):
        refused[0].build(classes=10)


def test_a_catalogue_is_kept_and_read_back(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    family = Family("zoo-efficientnet-lite", "zoo_efficientnet_lite.plugin:zoo_register_backbones")
    said: list[str] = []
    first = load_catalogue(family, said.append)
    assert set(first) == {"lite0", "lite1", "lite2"}
    assert len(said) == 1
    kept = catalogue_file(family)
    assert kept.exists()
    assert load_catalogue(family, said.append) == first
    assert len(said) == 1
    whole = kept.read_bytes()
    for damaged in (b"{ damaged", b"[]", b'{"x": {"name": "x"}}', b"", whole[:-1], whole + b" "):
        kept.write_bytes(damaged)
        assert load_catalogue(family, said.append) == first
        assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said_and_survived(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    family = Family("zoo-efficientnet-lite", "zoo_efficientnet_lite.plugin:zoo_register_backbones")
    said: list[str] = []
    assert set(load_catalogue(family, said.append)) == {"lite0", "lite1", "lite2"}
    assert "not cached" in said[-1]


def test_a_family_that_cannot_be_enumerated_is_a_record(install, caplog):
    install(
        "fam",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Family("zoo-registry", "plugin_fam:enumerate_backbones")

        def enumerate_backbones():
            raise RuntimeError("the library is of another time")
        """,
    )
    with caplog.at_level(logging.WARNING, "zoo"):
        assert zoo.list_backbones("fam/*") == []
    failed = next(r for r in load_registry().host.records if r.name == "fam")
    assert failed.status == "failed"
    assert "of another time" in failed.error
    assert zoo.get("resnet18").id == "torchvision/resnet18"


def test_listing_imports_no_torch(zoo_process):
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


def test_a_catalogue_is_not_made_with_what_lies_in_the_current_folder(
    install, monkeypatch, tmp_path
):
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
    said: list[str] = []
    assert set(load_catalogue(family, said.append)) == {"leafnet"}
    assert len(said) == 1
    assert not list(tmp_path.glob("*-was-run"))


def test_a_description_that_cannot_be_read_fails_its_source_only(install, monkeypatch, caplog):
    install(
        "fam",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Family("zoo-registry", "plugin_fam:enumerate_backbones")
        """,
    )
    real = load_catalogue

    def load(family, notify):
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


def test_an_unreadable_description_that_is_asked_for_is_the_plugins_fault(install, monkeypatch):
    install("fam", ONE.format(names=["leafnet"]))
    monkeypatch.setattr("zoo.registry.registry.Source._entries", {"oaknet": {"heads": 5}})
    with pytest.raises(zoo.BrokenPlugin, match="'oaknet'"):
        zoo.get("fam/oaknet")
    failed = next(r for r in load_registry().host.records if r.name == "fam")
    assert failed.status == "failed"


def test_public_names_are_all_there_and_each_is_listed_once_for_typing():
    tree = ast.parse(Path(zoo.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        for alias in statement.names
    }
    assert sorted(typed) == sorted(zoo.__all__)
    for name, home in typed.items():
        assert home in zoo._HOMES
        assert getattr(zoo, name) is getattr(import_module(home), name), name
    assert {"Busy", "plan"} <= set(zoo.__all__) <= set(dir(zoo))


def _checked_again(backbone):
    """Make a description anew, so that each of its fields is checked and settled."""
    weights = tuple(
        replace(item, preprocess=item.preprocess and replace(item.preprocess))
        for item in backbone.weights
    )
    heads = tuple(map(replace, backbone.heads))
    return replace(backbone, heads=heads, weights=weights, preprocess=replace(backbone.preprocess))


def test_what_a_catalogue_recalls_is_what_was_described():
    source = load_registry().sources["timm"]
    entries = source._entries
    assert len(entries) > 1000
    for name, plain in entries.items():
        recalled = restore_backbone(plain)
        checked = _checked_again(recalled)
        assert recalled == checked, name
        assert to_dict(recalled) == plain
        kinds = [type(getattr(recalled, item.name)) for item in fields(recalled)]
        assert kinds == [type(getattr(checked, item.name)) for item in fields(checked)]
    with pytest.raises(TypeError, match="cannot be changed"):
        recalled.kwargs["name"] = "other"
