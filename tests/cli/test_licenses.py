"""Licences on the command line: `list --license`, `show`, plans, warnings."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.networks import pooled
from zoo.tasks.classification.data.sources import EMBEDDED

LEAFY = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        weights = tuple(
            zoo.Weights(tag, file="{file}", license=license, num_classes=2, classes=("a", "b"))
            for tag, license in (("nc", "CC-BY-NC-4.0"), ("free", "MIT"), ("unstated", None))
        )
        yield zoo.Backbone("leafnet", "plugin_leafy:build", (zoo.Head("fc"),),
                           zoo.Preprocess(size=16), weights=weights)
"""
LIGHT = ("--no-plugin", "timm")


@pytest.fixture
def leafnet(install, tmp_path):
    """Install a backbone with three weights under three licences."""
    save_file(
        {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}, tmp_path / "w.safetensors"
    )
    install("leafy", LEAFY.format(file=tmp_path / "w.safetensors") + pooled(2))


def ids(out):
    return [item["id"] for item in json.loads(out)]


def test_list_license_by_kind_and_pattern(cli):
    code, out, err = cli("list", "--license", "permissive", "--json")
    items = json.loads(out)
    assert (code, err) == (0, "")
    assert len(items) > 900
    # Unknown licences, torchvision's included, never count as permissive.
    assert all(item["license"] and item["pretrained"] for item in items)
    assert "torchvision" not in {item["source"] for item in items}
    code, out, _ = cli("list", "vit_h_14", "lite0", "--license", "non-commercial", "--json")
    assert ids(out) == ["torchvision/vit_h_14"]
    code, out, err = cli("list", "--license", "APACHE-2.0", "--source", "efficientnet_lite")
    assert out.count("Apache-2.0") == 3
    assert "3 of" in err
    code, out, _ = cli("list", "*seer*", "regnety_*", "--license", "seer-*", "--json")
    assert {item["license"] for item in json.loads(out)} == {"seer-license"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--license", "permisive"), 2, "did you mean permissive?"),
        (("lite0", "--license", "noncommercial"), 2, "did you mean non-commercial?"),
        (("--license", "apache-3.0"), 0, "no backbone matches; did you mean Apache-2.0?"),
        (("lite0", "--license", "mit"), 0, "no backbone matches; licences of these: Apache-2.0"),
        (("resnet18", "--license", "copyleft", *LIGHT), 0, "licences of these: unknown"),
        (("resnet18x", "--license", "mit"), 0, "did you mean resnet18"),
        (("--no-pretrained", "--license", "mit"), 0, "hence no licence"),
    ],
)
def test_list_license_without_match_suggests(cli, arguments, code, message):
    exit_code, out, err = cli("list", *arguments)
    assert (exit_code, out) == (code, "")
    assert err.count("\n") == 1
    assert message in err


def test_list_help_documents_backbones_without_weights(cli):
    _, out, _ = cli("list", "--help")
    assert "Backbones without weights never match" in " ".join(out.split())


def test_show_license_kind(cli, leafnet):
    code, out, _ = cli("show", "leafnet", *LIGHT)
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("license"))
    assert facts == {"license": "CC-BY-NC-4.0 (non-commercial)"}
    rows = {
        line.split()[0]: line for line in out.splitlines() if "16x16" in line and "%" not in line
    }
    assert rows["nc"].endswith("CC-BY-NC-4.0 (non-commercial)")
    assert rows["free"].endswith("MIT (permissive)")
    assert rows["unstated"].endswith("unknown")
    code, out, _ = cli("show", "leafnet", "--json", *LIGHT)
    licenses = [(item["license"], item["license_kind"]) for item in json.loads(out)["weights"]]
    assert licenses == [
        ("CC-BY-NC-4.0", "non-commercial"),
        ("MIT", "permissive"),
        (None, "unknown"),
    ]
    assert "license     unknown" in cli("show", "resnet18", *LIGHT)[1]


def test_dry_run_license_in_plan(cli, leafnet):
    code, out, _ = cli("finetune", "leafnet", "--dry-run", *LIGHT)
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.startswith("license")]
    assert "CC-BY-NC-4.0 (non-commercial)" in row
    code, out, _ = cli("finetune", "resnet18", "--data", EMBEDDED, "--dry-run", "--json", *LIGHT)
    plan = json.loads(out)
    assert (plan["license"], plan["license_kind"]) == (None, "unknown")


@pytest.mark.slow
def test_license_warning_once_per_command(zoo_process, leafnet, tmp_path):
    for name in ("flag", "mammal"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:4]:
            shutil.copyfile(path, tmp_path / "few" / name / path.name)
    image = next((tmp_path / "few" / "flag").iterdir())
    training = ("finetune", "leafnet", "--data", "few", "--epochs", "1", "--quiet")
    terms = "licensed CC-BY-NC-4.0 (non-commercial): not for commercial use"
    for arguments, message in (
        (training, f"zoo: warning: weights nc of leafy/leafnet are {terms}"),
        (("predict", "leafnet", image), f"zoo: warning: weights nc of leafy/leafnet are {terms}"),
        (
            ("evaluate", "runs/leafnet-1", "--data", "few", "--json"),
            f"zoo: warning: runs/leafnet-1/model.safetensors is trained from weights {terms}",
        ),
        ((*training, "--weights", "free"), None),
        (("predict", "runs/leafnet-2", image), None),
    ):
        done = zoo_process(*map(str, arguments), *LIGHT)
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stderr.splitlines() if "licensed" in line] == [message][
            : bool(message)
        ]
