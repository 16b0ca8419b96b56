"""`zoo plugins new`: the package it writes, built and installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zoo
from zoo.testing.plugin_package import NETWORK, OBSERVER, TEMPLATE, derive_names, write_all

ENVIRONMENT = dict(os.environ)  # before any fixture changes it, so that uv finds its cache
UV = os.environ.get("UV") or shutil.which("uv")
NEEDS_UV = pytest.mark.skipif(UV is None, reason="uv builds and installs what is written")


def install_with_uv(package: Path, target: Path) -> None:
    """Build a package and install it into a folder, offline if possible."""
    command = [UV, "pip", "install", "--no-deps", "--python", sys.executable, "--target", target]
    for offline in (["--offline"], []):
        done = subprocess.run(
            [*command, *offline, package], capture_output=True, text=True, env=ENVIRONMENT
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(cli, cwd, monkeypatch):
    """Write a package and install it on the path of every process of the test."""
    assert cli("plugins", "new", "leaf-nets")[0] == 0
    install_with_uv(cwd / "zoo-leaf-nets", cwd / "site")
    monkeypatch.setenv("PYTHONPATH", str(cwd / "site"))
    return cwd / "zoo-leaf-nets"


def test_template_files_all_used():
    files = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*") if path.is_file()}
    assert files == {*NETWORK.values(), *OBSERVER.values()}


def test_new_writes_package_and_prints_steps(cli, cwd):
    code, out, err = cli("plugins", "new", "Leaf-nets")
    assert (code, err) == (0, "")
    root = cwd / "zoo-leaf-nets"
    written = {str(p.relative_to(cwd)) for p in root.rglob("*") if p.is_file()}
    assert written == set(re.findall(r"^wrote (.+)$", out, re.MULTILINE))
    assert len(written) == len(NETWORK)
    assert not [path for path in cwd.iterdir() if path != root]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["name"] == "zoo-leaf-nets"
    assert project["project"]["dependencies"] == [f"zoo-registry>={zoo.__version__}"]
    assert project["project"]["entry-points"] == {"zoo": {"leaf_nets": "zoo_leaf_nets.plugin"}}
    assert [name for name in project["dependency-groups"]["dev"] if name.startswith("pytest")]
    contract = (root / "tests" / "test_leaf_nets.py").read_text()
    assert [line for line in contract.splitlines() if line] == [
        "import zoo.testing",
        "class TestLeafNets(zoo.testing.BackboneContract):",
        '    backbone = "leaf_nets/leaf_nets_tiny"',
    ]
    for line in ("pip install -e zoo-leaf-nets", "pytest zoo-leaf-nets", "zoo finetune leaf_nets_"):
        assert line in out
    assert "$" not in "".join(path.read_text() for path in root.rglob("*.py"))
    assert "http" not in out


@pytest.mark.parametrize("kind", [(), ("--observer",)])
def test_new_package_passes_ruff(cli, cwd, kind):
    cli("plugins", "new", "leaf-nets", *kind)
    settings = Path(zoo.__file__).parents[1] / "pyproject.toml"
    for check in (["check", "--per-file-ignores", "**/tests/*:D"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", settings, "."],
            cwd=cwd,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@NEEDS_UV
def test_new_package_works_when_installed(installed, zoo_process):
    listed = zoo_process("list", "leaf_nets/*", "--json")
    assert [item["id"] for item in json.loads(listed.stdout)] == ["leaf_nets/leaf_nets_tiny"]
    shown = zoo_process("show", "leaf_nets_tiny", "--json")
    assert json.loads(shown.stdout)["origin"] == "plugin leaf_nets (zoo-leaf-nets 0.1.0)"
    probe = "import sys, zoo_leaf_nets.plugin; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)
    done = zoo_process("finetune", "leaf_nets_tiny", "--epochs", "1", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["plan"]["backbone"] == "leaf_nets/leaf_nets_tiny"
    again = zoo_process("plugins", "new", "leaf-nets", "--out", "other")
    assert again.returncode == 2
    assert "'leaf_nets' is already a plugin of zoo-leaf-nets 0.1.0" in again.stderr


@pytest.mark.slow
@NEEDS_UV
def test_new_observer_conforms_and_passes_its_tests(cli, cwd, monkeypatch, zoo_process):
    code, out, _ = cli("plugins", "new", "leaf-watch", "--observer")
    assert code == 0
    assert len(re.findall(r"^wrote ", out, re.MULTILINE)) == len(OBSERVER)
    install_with_uv(cwd / "zoo-leaf-watch", cwd / "site")
    monkeypatch.setenv("PYTHONPATH", str(cwd / "site"))
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "zoo-leaf-watch"]
    done = subprocess.run(tests, cwd=cwd, capture_output=True, text=True)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout
    checked = zoo_process("plugins", "check", "leaf_watch", "--json")
    (plugin,) = json.loads(checked.stdout)
    passed = {check["check"] for check in plugin["checks"] if check["status"] == "passed"}
    hooks = ("before_fit", "after_epoch", "after_fit", "on_error")
    assert passed == {f"observes_{hook}" for hook in hooks}
    shown = json.loads(zoo_process("plugins", "show", "leaf_watch", "--json").stdout)
    (option,) = shown["options"]
    assert (option["name"], option["default"], option["minimum"]) == ("every", 1, 1)
    probe = "import sys, zoo_leaf_watch.plugin; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)


@pytest.mark.slow
@NEEDS_UV
def test_new_package_own_tests_pass(installed):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", installed],
        cwd=installed.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm", "already a plugin of zoo-registry"),
        ("zoo-torchvision", "already a plugin of zoo-registry"),
        ("EfficientNet-Lite", "already a plugin of zoo-efficientnet-lite"),
        ("registry", "zoo-registry 0.1.0 is already installed"),
        ("leaf net", "not a valid plugin name"),
        ("../leaf", "not a valid plugin name"),
        ("blätter", "not a valid plugin name"),
        ("leaf\n", "not a valid plugin name"),
        ("leaf--net", "not a valid plugin name"),
        ("", "not a valid plugin name"),
    ],
)
def test_new_rejects_invalid_or_taken_name(cli, cwd, name, message):
    code, out, err = cli("plugins", "new", name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert list(cwd.iterdir()) == []


def test_new_rejects_source_of_derived_backbones(cli, cwd, tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet18"\n')
    code, _, err = cli("plugins", "new", "house", "--registry", file)
    assert code == 2
    assert "'house' is already a source of derived backbones" in err


def test_derive_names():
    names = derive_names("zoo-Big_leaf-2")
    assert names == {
        "distribution": "zoo-big-leaf-2",
        "package": "zoo_big_leaf_2",
        "source": "big_leaf_2",
        "backbone": "big_leaf_2_tiny",
        "camel": "BigLeaf2",
        "title": "big leaf 2",
    }


def test_new_rejects_non_empty_folder(cli, cwd):
    (cwd / "full").mkdir()
    (cwd / "full" / "mine.txt").write_text("mine")
    (cwd / "file").write_text("mine")
    for out in ("full", "file"):
        code, output, err = cli("plugins", "new", "leaf", "--out", out)
        assert (code, output) == (2, "")
        assert "is not an empty folder" in err
    assert (cwd / "full" / "mine.txt").read_text() == (cwd / "file").read_text() == "mine"
    assert sorted(path.name for path in cwd.rglob("*")) == ["file", "full", "mine.txt"]


def test_new_fills_empty_folder_in_place(cli, cwd, monkeypatch):
    (cwd / "empty").mkdir()
    before = (cwd / "empty").stat().st_ino
    monkeypatch.chdir(cwd / "empty")
    code, out, _ = cli("plugins", "new", "leaf", "--out", ".")
    assert code == 0
    assert "wrote zoo_leaf/plugin.py" in out
    assert (cwd / "empty").stat().st_ino == before
    assert (cwd / "empty" / "zoo_leaf" / "plugin.py").is_file()
    assert [path.name for path in cwd.iterdir()] == ["empty"]


def test_write_all_is_all_or_nothing(cwd):
    with pytest.raises(zoo.EnvironmentProblem, match="cannot write"):
        write_all(cwd / "leaf", {"one": "text", "one/two": "no folder"})
    assert list(cwd.iterdir()) == []
