"""docs/python.md: every passage runs, in order, with the results it documents."""

import ast
import inspect
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import is_typeddict

import pytest
import torch
from torch import nn

import zoo
from tests.docs.page_runner import SectionChecks
from tests.docs.passages import DOCS, read_page
from zoo.engine.plan.options import Options
from zoo.events import Event

PAGE = read_page("python.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
CODE = "\n".join(
    block.text for blocks in PAGE.sections.values() for block in blocks if block.kind == "python"
)
CALLS = [
    (call.func.attr, call)
    for call in ast.walk(ast.parse(CODE))
    if isinstance(call, ast.Call)
    and isinstance(call.func, ast.Attribute)
    and isinstance(call.func.value, ast.Name)
    and call.func.value.id == "zoo"
]
FUNCTIONS = sorted(name for name in zoo.__all__ if inspect.isfunction(getattr(zoo, name)))
CLASSES = sorted(
    name
    for name in zoo.__all__
    if inspect.isclass(getattr(zoo, name))
    and not is_typeddict(getattr(zoo, name))
    and name != "ExitCode"
)

SOFTNET = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone("softnet", "plugin_soft:build", (zoo.Head("1"),), zoo.Preprocess(32))

    def build(weights=None):
        from torch import nn

        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(pool, nn.Linear(3, 7), nn.Softmax(1))
"""


# Of a section: functions of the page's names and the printed text.
CHECKS = SectionChecks()


def test_python_page_runs(page_folder, install, capsys, monkeypatch):
    install("soft", SOFTNET)
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # descriptions name its functions
    names = vars(page)
    for heading, blocks in PAGE.sections.items():
        printed = output = ""
        for block in blocks:
            if block.kind == "text":
                pattern = block.text.strip().replace("[", "[[]").replace("...", "*")
                assert fnmatchcase(output, pattern), f"{block.line}: it prints\n{output}"
                continue
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(PAGE.path), "exec"), names)
            output = capsys.readouterr().out.strip()
            printed += output
        if any(block.kind == "python" for block in blocks):
            CHECKS[heading](names, printed)
    assert len(list((page_folder / "runs").iterdir())) == 5


@CHECKS.after("Look up")
def _(names, printed):
    assert names["backbone"].id == "efficientnet_lite/lite0"
    assert names["nearest"][0] == "resnet18"


@CHECKS.after("Filter")
def _(names, printed):
    small = [backbone.name for backbone in names["small"]]
    assert "resnet18" in small
    assert "resnet152" not in small
    assert {backbone.source for backbone in names["small"]} == {"torchvision"}


@CHECKS.after("Descriptions")
def _(names, printed):
    assert names["head"].path in printed
    assert "imagenet 1000 Apache-2.0" in printed


@CHECKS.after("Register your own")
def _(names, printed):
    assert printed == "local/leafnet 3"


@CHECKS.after("Plugins and registry files")
def _(names, printed):
    assert printed.startswith("timm/resnet10t [")
    assert "'tensorboard'" in printed
    with pytest.raises(zoo.UnknownBackbone):
        zoo.get("small")


@CHECKS.after("Build for your classes")
def _(names, printed):
    model = names["model"]
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.classifier.out_features == 3
    assert [type(layer) for layer in names["wide"].classifier] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
    ]
    assert torch.equal(model.conv_stem.weight, names["wide"].conv_stem.weight)
    assert names["grey"].conv1[0].in_channels == 1
    assert [layer.out_features for layer in names["vgg"].classifier if hasattr(layer, "bias")] == [
        256,
        3,
    ]


@CHECKS.after("Freeze by policy")
def _(names, printed):
    assert "2 parameters train" in printed
    assert torch.equal(names["before"], names["model"].bn1.running_mean)
    free = {name for name, p in names["theirs"].named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in free} == {"layer4", "fc"}


@CHECKS.after("Extract features")
def _(names, printed):
    model = names["model"]
    assert names["rows"].shape == (2, 1280)
    again = zoo.features(names["wide"], "cat.jpg")
    torch.testing.assert_close(names["rows"][:1], again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(names["batch"][:1], names["same"], rtol=1e-4, atol=1e-4)
    assert model.classifier.training  # the head, as freezing and `train()` left it
    assert not model.bn1.training


@CHECKS.after("Train in your own loop")
def _(names, printed):
    assert names["mine"].classes == ("flag", "mammal", "playing_card")
    saved, trained = names["mine"].module.state_dict(), names["model"].state_dict()
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    start = zoo.get("lite0").build(weights="auto").state_dict()
    changed = {name for name in start if not torch.equal(start[name], trained[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    measured = names["mine"].evaluate("photos/")
    assert measured["images"] == 12


@CHECKS.after("Train with zoo's loop")
def _(names, printed):
    run, plan = names["run"], names["plan"]
    assert plan.phases[0].epochs == 1
    assert names["losses"].values == [run.metrics["val"]["loss"]]
    assert plan.preprocess.size == (96, 96)
    assert set(plan.reasons) == set(run.record["plan"]["reasons"])
    assert "as given" in printed
    assert run.record["sha256"] in printed
    assert run.metrics["val"]["top1"] > 1 / 3
    # 24, 12 and 12 images once, and a batch of 12 twice to verify the cached features.
    assert run.record["backbone_forwards"] == 24 + 12 + 12 + 2 * 12


@CHECKS.after("Your own Dataset")
def _(names, printed):
    plan = names["shapes"].record["plan"]
    assert plan["classes"] == ["dark", "light"]
    assert plan["data"]["images"] == {"train": 16, "val": 4}
    assert plan["phases"][0]["keep_features"] is False


@CHECKS.after("Your own DataLoaders")
def _(names, printed):
    plan = names["loaded"].record["plan"]
    assert plan["batch_size"] == 8
    assert plan["reasons"]["batch_size"] == "auto: batch size of the DataLoader"
    assert plan["classes"] == ["flag", "mammal", "playing_card"]


@CHECKS.after("Your own loss")
def _(names, printed):
    assert "label_smoothing=0.1" in printed
    assert printed.endswith("focal")
    digests = {names[name].record["sha256"] for name in ("run", "smoothed", "focused")}
    assert len(digests) == 3
    assert {names[name].metrics["val"]["images"] for name in ("smoothed", "focused")} == {12}


@CHECKS.after("Your own metrics")
def _(names, printed):
    metrics = names["metrics"]
    assert metrics["flags"] == pytest.approx(metrics["per_class"]["flag"]["top1"])
    assert metrics["top1"] == names["run"].metrics["val"]["top1"]


@CHECKS.after("Save and load")
def _(names, printed):
    good, missing = names["answers"]
    assert good["predictions"][0]["class"] in names["run"].model().classes
    assert "does not exist" in missing["error"]
    assert isinstance(names["network"], nn.Module)
    assert len(names["published"][0]["predictions"]) == 1


@CHECKS.after("Names and reports")
def _(names, printed):
    first, listed, path, agreement = printed.splitlines()
    assert first == f"{names['named'].backbone} {names['model'].classes} {names['model'].classes}"
    assert listed == "['pets']"
    assert Path(path) == Path.cwd() / "first.html"
    assert Path(path).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "'equal_decisions': 1.0" in agreement
    assert zoo.list_models() == []


@CHECKS.after("Data sets and weights")
def _(names, printed):
    assert names["report"].images == {"train": 24, "val": 12, "test": 12}
    assert names["best"].accuracy > 1 / 3
    assert Path("features.npy").exists()
    assert names["imported"].classes == ("a", "b", "c")
    assert "PosixPath" in printed
    assert not zoo.list_cache("features")


@CHECKS.after("The installation")
def _(names, printed):
    assert names["diagnosis"].ok
    assert printed.startswith("ok versions zoo ")


@CHECKS.after("Errors")
def _(names, printed):
    assert "nowhere" in printed
    assert printed.endswith("| 3")
    rows = re.findall(r"^\| (`.*`.*?) \| (\d+) \|", TEXT, flags=re.MULTILINE)
    stated = {name: int(code) for kinds, code in rows for name in re.findall(r"`(\w+)`", kinds)}
    actual = {
        name: int(getattr(zoo, name).exit_code)
        for name in CLASSES
        if issubclass(getattr(zoo, name), zoo.ZooError) and name != "ZooError"
    }
    assert stated == actual


@CHECKS.after("Common mistakes")
def _(names, printed):
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        "first",
        "focal",
        "loaders",
        "shapes",
        "smooth",
    ]


def test_python_page_calls_every_function():
    assert {name for name, _ in CALLS} >= {*FUNCTIONS}
    for name, call in CALLS:
        if name in FUNCTIONS:
            keywords = {word.arg: None for word in call.keywords if word.arg}
            function = getattr(zoo, name)
            inspect.signature(function).bind(*call.args, **keywords)
            if name in ("plan", "finetune"):
                assert keywords.keys() - {"quiet"} <= set(Options.__dataclass_fields__)


def test_python_page_links_resolve():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert links
    for link in links:
        assert (DOCS / link.partition("#")[0]).exists(), link


def documented(text):
    """Return the names under `Args:` of a docstring."""
    part = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(text), re.DOTALL | re.MULTILINE)
    return set(re.findall(r"^    (\w+): ", part[1], re.MULTILINE)) if part else set()


def parameters(function):
    return set(inspect.signature(function).parameters) - {"self"}


@pytest.mark.parametrize("name", [*FUNCTIONS, "Backbone.build", "Model.evaluate", "Model.predict"])
def test_public_function_documents_parameters(name):
    owner, _, method = name.rpartition(".")
    function = getattr(getattr(zoo, owner), method) if owner else getattr(zoo, name)
    assert documented(function.__doc__) == parameters(function)


@pytest.mark.parametrize("name", CLASSES)
def test_public_class_documents_parameters(name):
    cls = getattr(zoo, name)
    assert cls.__doc__
    inherited = issubclass(cls, zoo.ZooError) and "__init__" not in vars(cls)
    shared = documented(Event.__doc__) if issubclass(cls, Event) else set()
    assert documented(cls.__doc__) | shared == (set() if inherited else parameters(cls))
