"""`zoo completion`, and what it completes, in the shells that are installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.registry.own_models import models_dir


@pytest.fixture
def completed(zoo_process):
    """Return a function that completes the last of some words."""

    def complete(*words: str, **environment: str) -> list[str]:
        line = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = zoo_process(_ZOO_COMPLETE="bash_complete", **line, **environment)
        assert done.returncode == 0
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def test_completion_of_values(completed, tmp_path, cli):
    models_dir().mkdir(parents=True)
    (models_dir() / "resnet_mine.json").write_text("{}")
    (tmp_path / "runs" / "resnet18-1").mkdir(parents=True)
    (tmp_path / "runs" / "resnet18-1" / "run.json").write_text("{}")
    backbones = completed("zoo", "show", "resnet1")
    assert "plain,resnet18" in backbones
    assert all(each.startswith("plain,resnet1") for each in backbones)
    assert "plain,torchvision/resnet18" in completed("zoo", "list", "torchvision/resnet1")
    models = completed("zoo", "predict", "resnet")
    assert models[0] == "file,"
    assert {"plain,resnet_mine", "plain,resnet18"} <= {*models}
    assert completed("zoo", "predict", "runs/") == ["file,", "plain,runs/resnet18-1"]
    assert completed("zoo", "finetune", "--resume", "runs/") == ["dir,", "plain,runs/resnet18-1"]
    assert completed("zoo", "finetune", "x", "--optimizer", "ad") == ["plain,adam", "plain,adamw"]
    assert completed("zoo", "finetune", "x", "--data", "") == ["file,"]
    assert "plain,torchvision" in completed("zoo", "plugins", "show", "")
    assert completed("zoo", "finetune", "x", "--class-w") == ["plain,--class-weights"]


def test_zsh_gets_three_lines_for_each_value(zoo_process, tmp_path):
    (tmp_path / "runs" / "lite0-1").mkdir(parents=True)
    (tmp_path / "runs" / "lite0-1" / "run.json").write_text("{}")
    folders, run = ["dir", " ", "_"], ["plain", "runs/lite0-1", "_"]
    # The shell completes a path itself.
    for typed, expected in (("", [*folders, *run]), ("runs/li", folders)):
        line = {"COMP_WORDS": f"zoo report {typed}", "COMP_CWORD": "2"}
        done = zoo_process(_ZOO_COMPLETE="zsh_complete", **line)
        # As the shell reads them: without empty lines, one triple after the other.
        assert [each for each in done.stdout.split("\n") if each] == expected


def test_weights_of_the_backbone_on_the_line_are_completed(completed):
    published = ["plain,IMAGENET1K_V2", "plain,IMAGENET1K_V1"]
    start = completed("zoo", "finetune", "resnet50", "--epochs", "3", "--weights", "")
    assert start == ["file,", "plain,auto", "plain,none", *published]
    assert completed("zoo", "predict", "resnet50", "a.jpg", "--weights", "IM") == [
        "file,",
        *published,
    ]
    both = completed("zoo", "fetch", "resnet50", "lite0", "--weights", "")
    assert both == [*published, "plain,imagenet"]
    assert completed("zoo", "finetune", "--weights", "no") == ["file,", "plain,none"]


def test_names_of_tasks_sources_and_kinds_are_completed(completed):
    assert completed("zoo", "list", "--task", "image") == ["plain,image-classification"]
    sources = completed("zoo", "list", "--source", "")
    assert {"plain,torchvision", "plain,timm"} <= {*sources}
    assert "plain,tasks" not in sources
    assert completed("zoo", "cache", "clear", "f") == ["plain,features"]
    assert completed("zoo", "check", "photos") == ["file,"]
    assert "plain,efficientnet_lite" in completed("zoo", "plugins", "check", "efficientnet_l")


def test_completion_is_silent_where_the_registry_is_broken(completed, tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("schema = [")
    assert completed("zoo", "--registry", str(file), "show", "resnet1") == []


def test_completion_imports_no_torch(tmp_path):
    code = (
        "import os, sys\n"
        "os.environ.update(_ZOO_COMPLETE='bash_complete', COMP_CWORD='4')\n"
        "os.environ['COMP_WORDS'] = 'zoo finetune resnet18 --weights '.replace(' ', chr(10))\n"
        "from zoo.cli import main\n"
        "try:\n    main([])\n"
        "except SystemExit:\n    print({'torch', 'numpy', 'PIL'} & {*sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert "plain,IMAGENET1K_V1" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_shell_is_accepted_by_it(shell, zoo_process, tmp_path):
    done = zoo_process("completion", shell)
    assert done.returncode == 0
    assert "_ZOO_COMPLETE" in done.stdout
    # A summary with commas is one value.
    assert shell != "fish" or 'string split -m 1 "," $completion' in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(done.stdout)
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)


def test_bash_completes_by_the_script(zoo_process, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = tmp_path / "script"
    script.write_text(zoo_process("completion", "bash").stdout)
    lines = [
        f"PATH={Path(sys.executable).parent}:$PATH",
        f"source {script}",
        "COMP_WORDS=(zoo fine); COMP_CWORD=1",
        "compopt() { :; }",
        "_zoo_completion zoo fine zoo",
        'echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "finetune\n", done.stderr
