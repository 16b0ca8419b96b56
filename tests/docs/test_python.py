"""docs/python.md: every passage runs, in order, and does what the page says of it."""

import ast
import inspect
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.docs.passages import DOCS, read_page
from zoo.engine.plan.options import Options

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
    name for name in zoo.__all__ if inspect.isclass(getattr(zoo, name)) and name != "ExitCode"
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


CHECKS = {}


def says(heading):
    """Register what a section of the page claims: a function of its names, and what it printed."""

    def register(check):
        CHECKS[heading] = check
        return check

    return register


def test_every_passage_runs_and_does_what_is_said(workplace, install, capsys):
    install("soft", SOFTNET)
    names = {"__name__": "page"}
    for heading, blocks in PAGE.sections.items():
        printed = answered = ""
        for block in blocks:
            if block.kind == "text":
                pattern = block.text.strip().replace("[", "[[]").replace("...", "*")
                assert fnmatchcase(answered, pattern), f"{block.line}: it prints\n{answered}"
                continue
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(PAGE.path), "exec"), names)
            answered = capsys.readouterr().out.strip()
            printed += answered
        if any(block.kind == "python" for block in blocks):
            CHECKS[heading](names, printed)
    assert len(list((workplace / "runs").iterdir())) == 5


@says("Look up")
def _(names, printed):
    assert names["backbone"].id == "efficientnet_lite/lite0"
    assert names["nearest"][0] == "resnet18"


@says("Filter")
def _(names, printed):
    found = [backbone.name for backbone in names["small"]]
    assert "resnet18" in found
    assert "resnet152" not in found
    assert {backbone.source for backbone in names["small"]} == {"torchvision"}


@says("What a description says")
def _(names, printed):
    assert names["head"].path in printed
    assert "imagenet 1000 Apache-2.0" in printed


@says("Build for your classes")
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


@says("Freeze by policy")
def _(names, printed):
    assert "2 parameters train" in printed
    assert torch.equal(names["before"], names["model"].bn1.running_mean)
    free = {name for name, p in names["theirs"].named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in free} == {"layer4", "fc"}


@says("Read features")
def _(names, printed):
    model = names["model"]
    assert names["rows"].shape == (2, 1280)
    again = zoo.features(names["wide"], "cat.jpg")
    torch.testing.assert_close(names["rows"][:1], again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(names["batch"][:1], names["same"], rtol=1e-4, atol=1e-4)
    assert model.classifier.training  # the head, as freezing and `train()` left it
    assert not model.bn1.training


@says("Train in a loop of your own")
def _(names, printed):
    assert names["mine"].classes == ("flag", "mammal", "playing_card")
    saved, trained = names["mine"].module.state_dict(), names["model"].state_dict()
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    start = zoo.get("lite0").build(weights="auto").state_dict()
    changed = {name for name in start if not torch.equal(start[name], trained[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    measured = names["mine"].evaluate("photos/")
    assert measured["images"] == 12


@says("Train with zoo's loop")
def _(names, printed):
    run, plan = names["run"], names["plan"]
    assert plan.phases[0].epochs == 1
    assert plan.preprocess.size == (96, 96)
    assert set(plan.reasons) == set(run.record["plan"]["reasons"])
    assert "as given" in printed
    assert run.record["sha256"] in printed
    assert run.metrics["val"]["top1"] > 1 / 3
    # Each of 24, 12 and 12 pictures once, and twice a batch that proves that once is enough.
    assert run.record["backbone_forwards"] == 24 + 12 + 12 + 2 * 12


@says("A Dataset of your own")
def _(names, printed):
    plan = names["shapes"].record["plan"]
    assert plan["classes"] == ["dark", "light"]
    assert plan["data"]["images"] == {"train": 16, "val": 4}
    assert plan["phases"][0]["keep_features"] is False


@says("DataLoaders of your own")
def _(names, printed):
    plan = names["loaded"].record["plan"]
    assert plan["batch_size"] == 8
    assert plan["reasons"]["batch_size"] == "auto: as your DataLoader gives"
    assert plan["classes"] == ["flag", "mammal", "playing_card"]


@says("A loss of your own")
def _(names, printed):
    assert "label_smoothing=0.1" in printed
    assert printed.endswith("focal")
    digests = {names[name].record["sha256"] for name in ("run", "smoothed", "focused")}
    assert len(digests) == 3
    assert {names[name].metrics["val"]["images"] for name in ("smoothed", "focused")} == {12}


@says("Metrics of your own")
def _(names, printed):
    said = names["said"]
    assert said["flags"] == pytest.approx(said["per_class"]["flag"]["top1"])
    assert said["top1"] == names["run"].metrics["val"]["top1"]


@says("Save and load")
def _(names, printed):
    good, missing = names["answers"]
    assert good["predictions"][0]["class"] in names["run"].model().classes
    assert "does not exist" in missing["error"]
    assert isinstance(names["network"], nn.Module)
    assert len(names["published"][0]["predictions"]) == 1


@says("Errors")
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


@says("When things are wrong")
def _(names, printed):
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        "first",
        "focal",
        "loaders",
        "shapes",
        "smooth",
    ]


def test_every_function_is_on_the_page_with_a_right_call():
    assert {name for name, _ in CALLS} >= {*FUNCTIONS}
    for name, call in CALLS:
        if name in FUNCTIONS:
            keywords = {word.arg: None for word in call.keywords if word.arg}
            function = getattr(zoo, name)
            inspect.signature(function).bind(*call.args, **keywords)
            if name in ("plan", "finetune"):
                assert keywords.keys() - {"quiet"} <= set(Options.__dataclass_fields__)


def test_every_link_resolves():
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
def test_every_function_documents_its_parameters(name):
    owner, _, method = name.rpartition(".")
    function = getattr(getattr(zoo, owner), method) if owner else getattr(zoo, name)
    assert documented(function.__doc__) == parameters(function)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_documents_its_parameters(name):
    made = getattr(zoo, name)
    assert made.__doc__
    inherited = issubclass(made, zoo.ZooError) and "__init__" not in vars(made)
    assert documented(made.__doc__) == (set() if inherited else parameters(made))
