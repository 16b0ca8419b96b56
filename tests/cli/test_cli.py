"""The command line: exit codes, one-line errors, stable JSON keys."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from timm.models import list_models

import zoo.data
from tests.networks import pooled
from tests.published_weights import checkpoint
from zoo.builtin.measured import read_measured
from zoo.cli import _run
from zoo.cli.group import COMMANDS, Settings

EMBEDDED = Path(next(iter(zoo.data.__path__))) / "clipart10"


def make_folder(root, **classes):
    """Make a folder of class folders with as many embedded images each."""
    source = sorted((EMBEDDED / "train" / "flag").iterdir())
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for path in source[:count]:
            shutil.copyfile(path, root / name / path.name)
    return root


def test_commands_table_matches_modules():
    import importlib

    for entry in COMMANDS:
        command = importlib.import_module(entry.module).command
        assert command.name == entry.name
        assert command.help


def test_list_json(cli):
    code, out, _ = cli("list", "resnet18", "*/lite0", "--json")
    assert code == 0
    items = {item["id"]: item for item in json.loads(out)}
    assert list(items) == ["torchvision/resnet18", "timm/resnet18", "efficientnet_lite/lite0"]
    keys = {"id", "name", "source", "plugin", "task", "heads", "params", "pretrained", "license"}
    assert all(keys <= set(item) for item in items.values())
    for source in ("torchvision", "timm"):
        params = 11_689_512 if read_measured(source) else None
        assert items[f"{source}/resnet18"]["params"] == params
    assert items["torchvision/resnet18"]["license"] is None
    assert items["timm/resnet18"]["license"] == "apache-2.0"


def test_list_table_sort_and_suggestions(cli):
    code, out, err = cli("list", "resnet*", "--source", "torchvision", "--sort", "params")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names[0] == "torchvision/resnet18"
    assert len(names) == 5
    assert "5 of" in err
    code, out, err = cli("list", "resnet--18")
    assert (code, out) == (0, "")
    assert "did you mean" in err
    code, out, _ = cli("list", "--sort", "name", "--no-pretrained")
    assert code == 0
    assert out.count("\n") > 200
    marked = [line for line in cli("list", "*_enc")[1].splitlines() if "cannot be" in line]
    assert marked


def test_show_json_and_table(cli):
    widths = [2048, 768] if read_measured("torchvision") else [None, None]
    code, out, _ = cli("show", "inception_v3", "--json")
    item = json.loads(out)
    assert code == 0
    assert item["heads"] == [
        {"path": "fc", "role": "main", "loss_weight": 1.0, "in_features": widths[0]},
        {"path": "AuxLogits.fc", "role": "aux", "loss_weight": 0.4, "in_features": widths[1]},
    ]
    assert item["preprocess"]["size"] == [299, 299]
    assert item["weights"][0]["tag"] == "IMAGENET1K_V1"
    assert item["exceptions"] == {}
    code, out, _ = cli("show", "mnasnet0_5")
    assert "exception   library_loads_it: torchvision's MNASNet needs a version" in out
    code, out, _ = cli("show", "vgg16")
    assert "classifier[6]" in out
    assert "IMAGENET1K_FEATURES" in out


def test_plugins_json_and_table(cli):
    code, out, _ = cli("plugins", "--json")
    items = {item["name"]: item for item in json.loads(out)}
    assert code == 0
    keys = {"name", "version", "status", "backbones", "error", "seconds"}
    assert all(keys <= set(item) for item in items.values())
    assert items["timm"]["backbones"] == len(list_models())
    assert items["efficientnet_lite"]["error"] is None
    code, out, _ = cli("plugins")
    assert "efficientnet_lite" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fintune"], 2, "did you mean finetune"),
        (["list", "--jsn"], 2, "--json"),
        (["list", "--sort", "size"], 2, "params"),
        (["list", "--source", "tim"], 2, "did you mean timm"),
        (["show"], 2, "NAME"),
        (["show", "resnet-18"], 2, "did you mean resnet18"),
        (["list", "--no-plugin", "tim"], 2, "did you mean timm"),
        (["finetune", "resnet18", "--device", "cudda"], 2, "did you mean cuda"),
        (["finetune", "resnet18", "--train", "stages:0"], 2, "not a policy"),
        (["finetune", "resnet18", "--epochs", "x"], 2, "whole number"),
        (["finetune", "lite0", "--train", "no_such", "--epochs", "1"], 2, "no module matches"),
        (["finetune", "resnet18", "--classes", "5"], 3, "--classes 10"),
        (["finetune", "resnet18", "--data", "nowhere"], 3, "nowhere"),
        (["finetune", "resnet18", "--data", "no  where\n"], 3, r"no  where\n does not exist"),
        (["finetune", "--resume", "no  run\n"], 2, r"no  run\n"),
        (["finetune", "lite0", "--weights", "gone.safetensors"], 4, "does not exist"),
        (["evaluate", "nothing.safetensors"], 4, "does not exist"),
        (["predict", "no_such_backbone", "x.jpg"], 2, "no backbone is named"),
    ],
)
def test_error_is_one_line_with_exit_code(cli, tmp_path, arguments, code, message):
    exit_code, out, err = cli(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith("DEMONSTRATION")]
    assert (exit_code, out) == (code, ""), err
    assert len(lines) == 1, err
    assert lines[0].startswith("zoo: error: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_finetune_unusable_data_exits_with_3(cli, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    one = make_folder(tmp_path / "one", flag=3)
    differs = tmp_path / "differs"
    make_folder(differs / "train", flag=3, other=3)
    make_folder(differs / "val", flag=3, another=3)
    for data, message in ((empty, "no images"), (one, "one class"), (differs, "another")):
        code, out, err = cli("finetune", "lite0", "--data", data)
        assert (code, out) == (3, ""), err
        assert message in err
        assert str(data) in err
    assert not (tmp_path / "runs").exists()


def test_finetune_unreachable_weights_exits_with_4(cli, tmp_path):
    data = make_folder(tmp_path / "data", one=3, two=3)
    code, out, err = cli("finetune", "resnet18", "--data", data)
    assert (code, out) == (4, "")
    assert all(way in err for way in ("--weights FILE", "--weights none", "efficientnet_lite"))
    assert not (tmp_path / "runs").exists()


def test_finetune_broken_backbone_exits_with_5(cli, install):
    install(
        "broken",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            for name, head in (("nohead", "classifier[7]"), ("nobuild", "fc")):
                yield zoo.Backbone(name, f"plugin_broken:{name}", (zoo.Head(head),),
                                   zoo.Preprocess(size=32))

        def nohead(weights=None):
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))

        def nobuild(weights=None):
            raise RuntimeError("no")
        """,
    )
    code, _, err = cli("finetune", "nohead", "--weights", "none")
    assert code == 5
    assert "'classifier'" in err
    assert "broken/nohead: no module" in err
    assert "its children are 0, 1" in err
    code, _, err = cli("finetune", "nobuild", "--weights", "none")
    assert code == 5
    assert "broken/nobuild does not build" in err


def test_finetune_failing_forward_exits_with_5(cli, install):
    install(
        "failing",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("failing", "plugin_failing:build", (zoo.Head("fc"),),
                               zoo.Preprocess(size=32))

        def build(weights=None):
            from torch import nn

            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(3, 2)

                def forward(self, x):
                    raise ZeroDivisionError("in the network")

            return Net()
        """,
    )
    code, _, err = cli("finetune", "failing", "--weights", "none", "--epochs", "1")
    assert code == 5
    assert "(32, 3, 32, 32): ZeroDivisionError: in the network" in err


def test_unexpected_exception_is_reported_as_bug(cli, monkeypatch):
    def fail(value):
        raise ZeroDivisionError("in zoo")

    monkeypatch.setattr("zoo.cli.list.print_json", fail)
    code, _, err = cli("list", "--json")
    assert code == 1
    assert "ZeroDivisionError: in zoo" in err
    assert "--debug" in err
    with pytest.raises(ZeroDivisionError):
        _run(["list", "--json", "--debug"], Settings())


def test_finetune_downloaded_weights_good_and_damaged(
    cli, install, tmp_path, file_server, monkeypatch
):
    """Weights on a server: valid, of another digest, truncated, and missing."""
    import torch

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = {"fc.weight": torch.ones(7, 3), "fc.bias": torch.zeros(7)}
    address, digits = file_server(checkpoint(content))
    adapters = f"""
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        for kind in ("good", "wrong", "half", "missing"):
            weights = zoo.Weights("web", url=f"{address}/{{kind}}-{digits}.pth", num_classes=7)
            yield zoo.Backbone(f"net_{{kind}}", "plugin_online:build", (zoo.Head("fc"),),
                               zoo.Preprocess(size=32), weights=(weights,))
    """
    install("online", adapters + pooled(7))
    data = make_folder(tmp_path / "data", one=4, two=4)
    code, _, err = cli("finetune", "net_good", "--data", data, "--epochs", "1")
    assert code == 0, err
    record = json.loads((tmp_path / "runs" / "net_good-1" / "run.json").read_text())
    assert record["base"]["sha256"].startswith(digits)
    for kind, message in (
        ("wrong", "not the file that was published"),
        ("half", "ended after"),
        ("missing", "404"),
    ):
        code, _, err = cli("finetune", f"net_{kind}", "--data", data, "--epochs", "1")
        assert code == 4
        assert message in err
        assert "--weights none" in err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["net_good-1"]


def test_dry_run_writes_nothing(cli, tmp_path):
    code, out, _ = cli("finetune", "resnet18", "--data", EMBEDDED, "--classes", 10, "--dry-run")
    assert code == 0
    assert "to be downloaded" in out
    code, out, _ = cli("finetune", "lite0", "--recipe", "head-then-all", "--dry-run", "--json")
    plan = json.loads(out)
    assert [phase["policy"] for phase in plan["phases"]] == ["head", "all"]
    assert plan["reasons"]["recipe"] == "as given"
    assert list(tmp_path.iterdir()) == []


def test_finetune_evaluate_predict_round_trip(cli, tmp_path):
    data = tmp_path / "photos"
    for name in ("flag", "mammal"):
        target = data / name
        target.mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:10]:
            shutil.copyfile(path, target / path.name)
    code, out, err = cli("finetune", "lite0", "--data", data, "--classes", 2, "--epochs", 5)
    assert code == 0, err
    assert "val   top-1" in out
    assert "zoo predict runs/lite0-1" in out
    assert err.count("val top-1") == 5
    code, out, _ = cli("evaluate", "runs/lite0-1", "--data", data, "--json")
    metrics = json.loads(out)
    assert (code, metrics["images"], metrics["split"]) == (0, 4, "val")
    assert {"loss", "top1", "top5", "per_class", "confusion"} <= set(metrics)
    code, out, _ = cli("evaluate", "runs/lite0-1", "--data", data)
    assert "CLASS" in out
    image = next((data / "flag").iterdir())
    (tmp_path / "bad.jpg").write_text("words")
    code, out, err = cli("predict", "runs/lite0-1", image, tmp_path / "bad.jpg", "--json")
    good, bad = json.loads(out)
    assert code == 3
    assert good["predictions"][0]["class"] in ("flag", "mammal")
    assert set(bad) == {"path", "error"}
    assert "1 of 2 images" in err
    code, out, err = cli("finetune", "lite0", "--data", data, "--epochs", 1, "--quiet", "--json")
    run = json.loads(out)
    assert (code, err) == (0, "")
    assert {"metrics", "seconds", "images_per_second", "plan", "backbone_forwards"} <= set(run)


def test_predict_with_pretrained_backbone(cli, tmp_path):
    from skimage import data

    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    Image.fromarray(data.coffee()).save(tmp_path / "coffee.png")
    code, out, _ = cli("predict", "lite0", tmp_path / "cat.png", tmp_path / "coffee.png", "--json")
    assert code == 0
    cat, coffee = json.loads(out)
    assert "cat" in cat["predictions"][0]["class"]
    assert coffee["predictions"][0]["class"] == "espresso"
    code, out, _ = cli("predict", "lite0", tmp_path / "coffee.png", "--top", 1)
    assert "espresso" in out


def test_help_loads_no_plugin(zoo_process, install):
    install("bad", "raise RuntimeError('never loaded for help')")
    for arguments in (["--help"], ["finetune", "--help"], ["--version"]):
        done = zoo_process(*arguments)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_of_command_names(zoo_process):
    done = zoo_process(_ZOO_COMPLETE="bash_complete", COMP_WORDS="zoo fi", COMP_CWORD="1")
    assert "finetune" in done.stdout
    assert "evaluate" not in done.stdout
