"""`zoo plugins new`: what it writes is a plugin that works, really installed."""

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
from zoo.cli.plugins_new import FILES, TEMPLATE, names_of, write_all

SURROUNDINGS = dict(os.environ)  # as they were before any fixture; uv's cache is found by them
UV = os.environ.get("UV") or shutil.which("uv")
NEEDS_UV = pytest.mark.skipif(UV is None, reason="uv builds and installs what is written")


def install_really(package: Path, target: Path) -> None:
    """Build a package and install it into a folder, without a network where that is possible."""
    command = [UV, "pip", "install", "--no-deps", "--python", sys.executable, "--target", target]
    for offline in (["--offline"], []):
        done = subprocess.run(
            [*command, *offline, package], capture_output=True, text=True, env=SURROUNDINGS
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(cli, here, monkeypatch):
    """Write a package and install it where every process of the test finds it."""
    assert cli("plugins", "new", "leaf-nets")[0] == 0
    install_really(here / "zoo-leaf-nets", here / "site")
    monkeypatch.setenv("PYTHONPATH", str(here / "site"))
    return here / "zoo-leaf-nets"


def test_every_template_is_used():
    assert {path.name for path in TEMPLATE.iterdir()} == set(FILES.values())


def test_what_it_writes_and_says(cli, here):
    code, out, err = cli("plugins", "new", "Leaf-nets")
    assert (code, err) == (0, "")
    root = here / "zoo-leaf-nets"
    written = {str(p.relative_to(here)) for p in root.rglob("*") if p.is_file()}
    assert written == set(re.findall(r"^wrote (.+)$", out, re.MULTILINE))
    assert len(written) == len(FILES)
    assert not [path for path in here.iterdir() if path != root]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["name"] == "zoo-leaf-nets"
    assert project["project"]["dependencies"] == ["zoo-registry"]
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


def test_what_it_writes_is_clean(cli, here):
    cli("plugins", "new", "leaf-nets")
    settings = Path(zoo.__file__).parents[1] / "pyproject.toml"
    for check in (["check", "--per-file-ignores", "**/tests/*:D"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", settings, "."],
            cwd=here,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@NEEDS_UV
def test_it_works_once_installed(installed, zoo_process):
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
    assert "'leaf_nets' is the name of a plugin of zoo-leaf-nets 0.1.0" in again.stderr


@pytest.mark.slow
@NEEDS_UV
def test_its_own_tests_pass(installed):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", installed],
        cwd=installed.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm", "plugin of zoo-registry"),
        ("zoo-torchvision", "plugin of zoo-registry"),
        ("EfficientNet-Lite", "plugin of zoo-efficientnet-lite"),
        ("registry", "zoo-registry 0.1.0 is installed already"),
        ("leaf net", "no name for a plugin"),
        ("../leaf", "no name for a plugin"),
        ("blätter", "no name for a plugin"),
        ("leaf\n", "no name for a plugin"),
        ("leaf--net", "no name for a plugin"),
        ("", "no name for a plugin"),
    ],
)
def test_a_name_that_cannot_be_used(cli, here, name, said):
    code, out, err = cli("plugins", "new", name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
    assert list(here.iterdir()) == []


def test_the_source_of_a_derived_backbone_is_taken(cli, here, tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('schema = 1\n[backbones."house/leaf"]\nextends = "resnet18"\n')
    code, _, err = cli("plugins", "new", "house", "--registry", file)
    assert code == 2
    assert "'house' is a source of derived backbones" in err


def test_names():
    names = names_of("zoo-Big_leaf-2")
    assert names == {
        "distribution": "zoo-big-leaf-2",
        "package": "zoo_big_leaf_2",
        "source": "big_leaf_2",
        "backbone": "big_leaf_2_tiny",
        "camel": "BigLeaf2",
        "title": "big leaf 2",
    }


def test_nothing_is_written_over(cli, here):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("mine")
    (here / "file").write_text("mine")
    for out in ("full", "file"):
        code, said, err = cli("plugins", "new", "leaf", "--out", out)
        assert (code, said) == (2, "")
        assert "is not an empty folder" in err
    assert (here / "full" / "mine.txt").read_text() == (here / "file").read_text() == "mine"
    assert sorted(path.name for path in here.rglob("*")) == ["file", "full", "mine.txt"]


def test_an_empty_folder_is_taken_as_it_is(cli, here, monkeypatch):
    (here / "empty").mkdir()
    before = (here / "empty").stat().st_ino
    monkeypatch.chdir(here / "empty")
    code, out, _ = cli("plugins", "new", "leaf", "--out", ".")
    assert code == 0
    assert "wrote zoo_leaf/plugin.py" in out
    assert (here / "empty").stat().st_ino == before
    assert (here / "empty" / "zoo_leaf" / "plugin.py").is_file()
    assert [path.name for path in here.iterdir()] == ["empty"]


def test_all_files_appear_or_none(here):
    with pytest.raises(zoo.EnvironmentProblem, match="cannot write"):
        write_all(here / "leaf", {"one": "text", "one/two": "no folder"})
    assert list(here.iterdir()) == []
