"""docs/hooks.md: generated from the hooks, and every example in it runs."""

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import zoo
from tests.docs.hook_reference import COMMON, field_descriptions, read_hooks, render
from tests.docs.passages import DOCS, read_page
from zoo import hookspecs
from zoo.registry.registry import load_registry
from zoo.seeding import epoch_order

HOOKS = read_hooks()
OBSERVING = [hook for hook in HOOKS if hook.event]
PAGE = read_page("hooks.md")
QUICK = {"weights": "none", "device": "cpu", "batch_size": 8, "train": "all", "epochs": 2}

NETWORK = """
def build(weights=None):
    from torch import nn

    class Leafnet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 8), nn.BatchNorm2d(8), nn.ReLU())
            self.pool = nn.AdaptiveAvgPool2d(1)
            layers = [nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1)]
            self.classifier = nn.Sequential(*layers, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 7))

        def forward(self, images):
            return self.classifier(self.pool(self.stem(images)))

    return Leafnet()
"""


def test_hooks_page_is_up_to_date():
    hint = "run `python -m tests.docs.hook_reference > docs/hooks.md`"
    assert (DOCS / "hooks.md").read_text(encoding="utf-8") == render(), hint


def signatures() -> list[str]:
    """Return the signature of every hook, parsed from the source."""
    lines = []
    for node in ast.parse(inspect.getsource(hookspecs)).body:
        marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", ())]
        if isinstance(node, ast.FunctionDef) and "hookspec" in marks:
            lines.append(f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}")
    return lines


def test_hooks_page_heading_per_signature():
    headings = [line for line in (DOCS / "hooks.md").read_text().splitlines() if line[:3] == "## "]
    assert headings == [f"## `{signature}`" for signature in signatures()]
    assert len(headings) == len(HOOKS) > 1


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_hook_docstring_and_event_fields(hook):
    assert hook.text
    assert f"@zoo.hookimpl\ndef {hook.name}(" in hook.example
    assert [block.text.strip() for block in PAGE.blocks(f"`{hook.signature}`")] == [hook.example]
    if hook.event:
        descriptions = field_descriptions(hook.event)
        own = [field.name for field in fields(hook.event) if field.name not in COMMON]
        assert list(descriptions) == own
        assert all(descriptions.values())
        assert hook.event.__name__ in zoo.__all__


@pytest.fixture
def leafnet(install, tmp_path) -> str:
    """Install the network that the collecting examples describe, with them as its adapter."""
    collecting = [hook.example.removeprefix("import zoo") for hook in HOOKS if not hook.event]
    install("leafnet", "\n\n\n".join(["import zoo", *collecting]))
    package = tmp_path / "site" / "leafnet"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(NETWORK)
    return "leafnet/leafnet"


@pytest.fixture
def train_with_examples(install, leafnet, monkeypatch, capsys):
    """Install each observing example as a plugin, and return a function that trains.

    It takes options, and returns the run or the error it raised, and the lines that each hook's
    example printed before zoo traced the call.
    """
    for hook in OBSERVING:
        install(hook.name, hook.example)
    monkeypatch.setenv("ZOO_TRACE_HOOKS", "1")

    def train(**options):
        capsys.readouterr()
        try:
            result = zoo.finetune(leafnet, **QUICK | options)
        except zoo.ZooError as error:
            result = error
        printed_by, printed = {hook.name: [] for hook in OBSERVING}, []
        for line in capsys.readouterr().err.splitlines():
            name = line.removeprefix("zoo: hook ").partition(":")[0]
            if line.startswith("zoo: hook ") and name in printed_by:
                assert f"zoo: hook {name}: {name}({event_of(name)}(" in line
                assert "raised" not in line
                printed_by[name] += printed
            printed = [] if line.startswith("zoo: ") else [*printed, line]
        return result, printed_by

    return train


def event_of(name: str) -> str:
    return next(hook.event.__name__ for hook in OBSERVING if hook.name == name)


def expected_output(run, failure) -> dict[str, list[str]]:
    """Return the output of each example for a training that succeeded, and one that failed."""
    rows = (run.path / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_top1")
    accuracies = [float(row.split(",")[column]) for row in rows[1:]]
    steps = -(-len(list(Path("photos/train").rglob("*.jpg"))) // 8)
    return {
        "zoo_before_fit": ["leafnet/leafnet 0"],
        "zoo_on_first_batch": [f"(8, 224, 224, 3) {first_labels(run)}"],
        "zoo_after_epoch": [f"{number} {top1}" for number, top1 in enumerate(accuracies, 1)],
        "zoo_after_step": [
            f"{epoch} {step} {steps}" for epoch in (1, 2) for step in range(1, steps + 1)
        ],
        "zoo_should_stop": [],
        "zoo_report_sections": [confident(run)],
        "zoo_after_fit": [str(run.metrics["val"]["top1"])],
        "zoo_on_error": [f"{type(failure).__name__} {failure}"],
    }


def confident(run) -> str:
    """Return the number of validation images, and of those predicted with more than 0.9."""
    paths = sorted(Path("photos/val").rglob("*.jpg"))
    answers = run.model().predict(paths, top=1)
    return f"{len(paths)} {sum(each['predictions'][0]['probability'] > 0.9 for each in answers)}"


def first_labels(run) -> list[str]:
    """Return the classes of the first batch, whose order depends on the seed."""
    paths = sorted(Path("photos/train").rglob("*.jpg"))
    order = epoch_order(len(paths), run.record["plan"]["seed"], 1)
    return [paths[index].parent.name for index in list(order)[:8]]


def test_observing_examples_print_as_documented(page_folder, train_with_examples):
    run, printed_by = train_with_examples(data="photos")
    broken, printed_on_failure = train_with_examples(
        data="photos", lr=1e18, optimizer="sgd", schedule="constant", epochs=3
    )
    assert isinstance(broken, zoo.Diverged)
    printed_by["zoo_on_error"] += printed_on_failure["zoo_on_error"]
    expected = expected_output(run, broken)
    assert expected.keys() == {hook.name for hook in OBSERVING}  # extend it for a new hook
    assert printed_by == expected
    assert printed_on_failure["zoo_before_fit"] == expected["zoo_before_fit"]
    assert printed_on_failure["zoo_after_fit"] == []


def test_collecting_examples_register(leafnet):
    backbone = zoo.get(leafnet)
    assert backbone.build(classes=3).classifier[6].out_features == 3
    task = load_registry().task("leaf-counting")
    assert (task.source, task.target) == ("leafnet", "leafnet.counting:LeafCounting")
    resnet18 = zoo.get("resnet18")
    assert resnet18.find_weights("leaves").file == "leafnet:leaves.safetensors"
    (offered,) = (file for file in resnet18.local.files if file.source == "leafnet")
    assert offered.sha256.startswith(resnet18.weights[0].digest)
