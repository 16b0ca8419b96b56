"""`--registry FILE`: list, show, train and predict with derived backbones."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zoo.cli.group import COMMANDS

TINY = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("tinynet", "plugin_tiny:build", (zoo.Head("fc"),), zoo.Preprocess(32))

    def build(weights=None):
        from torch import nn

        class Tinynet(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(3, 8, 3, 2)
                self.fc = nn.Linear(8, 7)

            def forward(self, x):
                return self.fc(self.stem(x).mean((2, 3)))

        return Tinynet()
"""
ENTRY = """schema = 1
[backbones."house/leaf"]
extends = "tiny/tinynet"
[[backbones."house/leaf".weights]]
tag = "leaf-v1"
file = "{file}"
sha256 = "{sha256}"
license = "CC-BY-4.0"
classes = ["blue", "red"]
"""
# No test here needs the catalogue of timm.
LIGHT = ("--no-plugin", "timm")


@pytest.fixture
def cli(cli):
    """Run a command without timm."""
    return lambda *arguments: cli(*arguments, *LIGHT)


@pytest.fixture
def colours(tmp_path):
    """A folder of images in two easily separable classes."""
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        folder = tmp_path / "colours" / name
        folder.mkdir(parents=True)
        for number in range(8):
            dimmed = tuple(value - 5 * number if value else 0 for value in colour)
            Image.new("RGB", (40, 40), dimmed).save(folder / f"{number}.png")
    return tmp_path / "colours"


def register(root, file, **changes):
    """Write a registry file that derives a backbone from a weights file."""
    values = {"file": file, "sha256": hashlib.sha256((root / file).read_bytes()).hexdigest()}
    path = root / f"house-{len(list(root.glob('*.toml')))}.toml"
    path.write_text(ENTRY.format(**(values | changes)))
    return path


def test_derived_backbone_from_model_file(cli, install, colours, tmp_path):
    install("tiny", TINY)
    training = ("--data", colours, "--epochs", 2, "--device", "cpu", "--quiet")
    training += ("--precision", "fp32")
    code, _, err = cli("finetune", "tinynet", "--weights", "none", "--lr", "0.1", *training)
    assert code == 0, err
    registry = register(tmp_path, "runs/tinynet-1/model.safetensors")
    image = colours / "red" / "0.png"

    code, out, err = cli("--registry", registry, "predict", "leaf", image, "--json")
    assert code == 0, err
    answers = json.loads(out)
    assert answers == json.loads(cli("predict", "runs/tinynet-1", image, "--json")[1])
    assert {p["class"] for p in answers[0]["predictions"]} == {"blue", "red"}

    code, _, err = cli("finetune", "house/leaf", "--registry", registry, *training)
    assert code == 0, err
    run = json.loads((tmp_path / "runs" / "leaf-1" / "run.json").read_text())
    assert (run["plan"]["backbone"], run["base"]["tag"]) == ("house/leaf", "leaf-v1")
    assert run["base"]["license"] == "CC-BY-4.0"
    for command in (
        ("predict", "runs/leaf-1", image),
        ("evaluate", "runs/leaf-1", "--data", colours),
    ):
        code, out, err = cli(*command, "--registry", registry)
        assert code == 0, err
        assert "red" in out
        code, _, err = cli(*command)
        assert code == 2
        assert "'house/leaf'" in err


def test_derived_backbone_from_plain_state_dict(cli, install, colours, tmp_path):
    install("tiny", TINY)
    tensors = {
        "stem.weight": torch.zeros(8, 3, 3, 3),
        "stem.bias": torch.zeros(8),
        "fc.weight": torch.zeros(2, 8),
        "fc.bias": torch.tensor([0.0, 5.0]),
    }
    save_file(tensors, tmp_path / "leaf.safetensors")
    registry = register(tmp_path, "leaf.safetensors")
    image = colours / "blue" / "0.png"
    code, out, err = cli("predict", "leaf", image, "--top", 1, "--registry", registry)
    assert code == 0, err
    assert "red" in out
    changed = register(tmp_path, "leaf.safetensors", sha256="0" * 64)
    code, _, err = cli("predict", "leaf", image, "--registry", changed)
    assert code == 4
    assert "correct the sha256" in err
    (tmp_path / "leaf.safetensors").unlink()
    code, _, err = cli("predict", "leaf", image, "--registry", registry)
    assert code == 4
    assert "leaf.safetensors does not exist" in err


def test_derived_backbone_list_and_show_origin(cli, install, tmp_path):
    install("tiny", TINY)
    (tmp_path / "leaf.safetensors").write_bytes(b"never opened here")
    registry = register(tmp_path, "leaf.safetensors")
    origin = f"{registry}, line 2, extending tiny/tinynet"
    code, out, _ = cli("list", "--registry", registry, "--json")
    assert code == 0
    last = json.loads(out)[-1]
    assert (last["id"], last["source"], last["plugin"]) == ("house/leaf", "house", "tiny")
    assert (last["pretrained"], last["license"]) == (True, "CC-BY-4.0")
    code, out, err = cli("list", "--source", "house", "--registry", registry)
    assert out.splitlines()[1].startswith("house/leaf")
    assert "1 of 91" in err
    code, out, _ = cli("show", "leaf", "--json", "--registry", registry)
    item = json.loads(out)
    assert item["origin"] == origin
    assert item["weights"][0]["from"] == str(tmp_path / "leaf.safetensors")
    assert item["weights"][0]["num_classes"] == 2
    code, out, _ = cli("show", "leaf", "--registry", registry)
    assert f"from        {origin}" in out
    code, out, _ = cli("plugins", "--registry", registry, "--json")
    assert {item["name"]: item["backbones"] for item in json.loads(out)}["tiny"] == 1
    assert cli("show", "leaf")[0] == 2


def test_derived_backbone_with_disabled_base(cli, install, tmp_path):
    install("tiny", TINY)
    (tmp_path / "leaf.safetensors").touch()
    away = ("--registry", register(tmp_path, "leaf.safetensors"), "--no-plugin", "tiny")
    code, out, _ = cli("list", "*net18", *away)
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, err = cli("show", "house/leaf", *away)
    assert (code, out) == (5, "")
    assert "house/leaf extends tiny/tinynet, and plugin tiny is switched off" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "schema = 1\n[backbones.'a/b']\nextend = 'x'",
            'line 3: unknown key backbones."a/b".extend;',
        ),
        ("schema = 1\n[backbones.'a/b']\nextends = 'torchvision/x'", "line 3: "),
        ("schema = ", "not valid TOML"),
        (None, "cannot read"),
    ],
)
def test_invalid_registry_file_names_line(cli, tmp_path, text, message):
    path = tmp_path / "bad.toml"
    if text is not None:
        path.write_text(text)
    code, out, err = cli("list", "--registry", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"zoo: error: {path}" in err or "cannot read" in err
    assert message in err


def test_registry_option_of_every_command(cli, tmp_path):
    for entry in COMMANDS:
        assert "--registry FILE" in cli(entry.name, "--help")[1]
    code, _, err = cli("--registry", "a.toml", "list", "--registry", "b.toml")
    assert code == 2
    assert "--registry is given twice" in err


def test_list_derived_backbones_imports_no_torch(install, tmp_path):
    install("tiny", TINY)
    (tmp_path / "leaf.safetensors").touch()
    registry = register(tmp_path, "leaf.safetensors")
    for command in (["list"], ["show", "leaf"]):
        arguments = [*command, "--registry", str(registry), *LIGHT]
        code = (
            "import sys, zoo.cli as c\n"
            f"try: c.main({arguments!r})\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL', 'safetensors'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "house/leaf" in done.stdout
