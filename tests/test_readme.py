"""README.md: its Python and its plugin run, its commands parse, its tables and paths are true."""

import hashlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

import zoo
from zoo.builtin.measured import installed_version
from zoo.cli.group import zoo_group
from zoo.spec import IMAGE_CLASSIFICATION
from zoo.tasks.classification.data.sources import EMBEDDED

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("zoo ")
]


def python_block(containing):
    return next(text for kind, text in BLOCKS if kind == "python" and containing in text)


@pytest.mark.parametrize("line", COMMANDS)
def test_readme_command_parses(line):
    context = zoo_group.make_context("zoo", shlex.split(line)[1:])
    name, command, rest = zoo_group.resolve_command(context, context._protected_args + context.args)
    command.make_context(name, rest, parent=context)


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    for name in ("flag", "mammal", "playing_card"):
        target = tmp_path / "photos" / name
        target.mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:5]:
            shutil.copyfile(path, target / path.name)
    shutil.copyfile(path, tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(python_block("zoo.finetune"), names)
    assert len(names["parameters"]) == 2
    assert "probability" in capsys.readouterr().out


def test_readme_plugin_registers_backbone(install, tmp_path):
    install("leafnet", python_block("leafnet.model:build"))
    backbone = zoo.get("leafnet")
    assert backbone.heads[0].module_path == "classifier.6"
    assert 'leafnet = "leafnet.plugin"' in README


def test_readme_derived_backbone_predicts(tmp_path):
    from zoo.inference.loading import load_pretrained
    from zoo.registry.registry import load_registry

    weights = tmp_path / "leaf.safetensors"
    zoo.save(zoo.get("resnet18").build(classes=2), weights, ["oak", "ash"])
    block = next(text for kind, text in BLOCKS if kind == "toml" and "house/leaf" in text)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    file = tmp_path / "registry.toml"
    file.write_text(block.replace("0" * 64, digest))
    registry = load_registry(file=file)
    assert f"{file}, line 3" in registry.get("house/leaf").origin
    (answer,) = load_pretrained("house/leaf", registry).predict(
        next((EMBEDDED / "val/flag").iterdir())
    )
    assert {each["class"] for each in answer["predictions"]} == {"oak", "ash"}


def test_readme_backbone_count():
    backbones = [
        backbone
        for source in ("torchvision", "timm")
        for backbone in zoo.list_backbones(source=source, task=IMAGE_CLASSIFICATION)
    ]
    counted = re.search(r"\(([\d,]+) with\n([\d.]+) and ([\d.]+)\)", README)
    assert counted
    if counted.groups()[1:] != (installed_version("torchvision"), installed_version("timm")):
        pytest.skip("the README counts those of other versions")
    assert counted[1] == f"{len(backbones):,}"


def test_readme_exit_codes():
    from zoo import ExitCode

    stated = {
        int(n) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for n in row.split(",")
    }
    assert stated == {int(code) for code in ExitCode}


def test_readme_named_paths_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (root / target).exists(), target
    for path in re.findall(r"`(zoo/[\w./]+)`", README):
        assert (root / path).exists(), path
