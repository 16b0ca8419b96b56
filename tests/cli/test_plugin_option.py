"""`--plugin FILE`: list, train, evaluate and predict with a plugin in one file."""

import json
import shutil

import pytest

from zoo.tasks.classification.data.sources import EMBEDDED

LEAF = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("leaf_tiny", "leaf_in_file:build", (zoo.Head("4"),),
                           zoo.Preprocess(size=32))

    def build(weights=None):
        from torch import nn
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten(), nn.Linear(8, 5))
"""
STEM = "leaf_in_file"


@pytest.fixture
def file(plugin_file):
    return plugin_file(STEM, LEAF)


def test_plugin_option_before_and_after_command(cli, file, plugin_file):
    more = plugin_file("oak_in_file", LEAF.replace("leaf", "oak"))
    for arguments in (
        ["--plugin", file, "list", "*_tiny", "--source", STEM, "--json"],
        ["list", "*_tiny", "--source", STEM, "--json", "--plugin", file],
        ["--plugin", more, "list", "*_tiny", "--source", STEM, "--json", "--plugin", file],
    ):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert [item["id"] for item in json.loads(out)] == [f"{STEM}/leaf_tiny"]
    code, out, _ = cli("plugins", "--plugin", file, "--plugin", more)
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.startswith(STEM)]
    assert row[1:5] == ["file", "-", "ok", "1"]
    code, out, _ = cli("--plugin", file, "plugins", "show", STEM)
    assert code == 0
    assert f"file        {file}" in out
    code, out, _ = cli("show", "leaf_tiny", "--plugin", file)
    assert code == 0
    assert f"from        plugin {STEM} (file {file})" in out


def test_plugin_option_invalid_file_exits_with_2(cli, tmp_path, plugin_file):
    for path, message in (
        (tmp_path / "gone.py", "does not exist"),
        (tmp_path, "is a folder"),
        (plugin_file("json", ""), "would hide the module 'json'"),
    ):
        code, out, err = cli("list", "--plugin", path)
        assert (code, out) == (2, "")
        assert err.startswith("zoo: error: --plugin ")
        assert err.count("\n") == 1
        assert message in err


def test_broken_plugin_file_fails_only_its_backbones(cli, plugin_file):
    bad = plugin_file("bad_in_file", "raise RuntimeError('no leaf today')")
    code, out, _ = cli("list", "torchvision/resnet18", "--json", "--plugin", bad)
    assert (code, len(json.loads(out))) == (0, 1)
    for command in (["show"], ["finetune"]):
        code, out, err = cli(*command, "bad_in_file/leaf_tiny", "--plugin", bad)
        assert (code, out) == (5, "")
        assert "no leaf today" in err.splitlines()[-1]
    broken = plugin_file(STEM, LEAF.replace("from torch import nn", "from torch import no_nn"))
    code, _, err = cli("finetune", "leaf_tiny", "--weights", "none", "--plugin", broken)
    assert code == 5
    assert f"{STEM}/leaf_tiny does not build" in err


@pytest.mark.slow
def test_plugin_file_finetune_evaluate_predict(zoo_process, file, tmp_path):
    for name in ("flag", "mammal"):
        target = tmp_path / "photos" / name
        target.mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:6]:
            shutil.copyfile(path, target / path.name)
    with_plugin = ("--plugin", str(file))
    done = zoo_process(
        *with_plugin, "finetune", "leaf_tiny", "--data", "photos", "--weights", "none",
        "--epochs", "1", "--workers", "2", "--out", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"use   zoo predict run IMAGE... --plugin {file}\n" in done.stdout
    done = zoo_process(
        "evaluate", "run", "--data", "photos", "--workers", "2", "--json", *with_plugin
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2
    done = zoo_process("predict", "run", str(path), "--json", *with_plugin)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert {text["class"] for text in answer["predictions"]} == {"flag", "mammal"}
    done = zoo_process("predict", "run", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for text in (f"'{STEM}/leaf_tiny'", "run/model.safetensors", "--plugin FILE"):
        assert text in done.stderr
    done = zoo_process("predict", "run", str(path), *with_plugin, "--no-plugin", STEM)
    assert done.returncode == 2
    assert f"plugin {STEM} is switched off" in done.stderr


def test_list_with_plugin_file_imports_no_torch(file):
    import subprocess
    import sys

    probe = (
        "import sys, zoo.cli as c\n"
        f"try: c.main(['list', 'leaf*', '--plugin', {str(file)!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{STEM}/leaf_tiny" in done.stdout
