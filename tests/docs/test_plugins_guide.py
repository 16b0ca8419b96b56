"""docs/plugins.md: every block runs, in order, and its tables match the code."""

import json
import re
from dataclasses import fields

import pytest
import torch

import zoo
from tests.docs.page_runner import PageRunner, SectionChecks, file_named_by
from tests.docs.passages import DOCS, read_page
from zoo.testing.fixtures import IsolatedZoo
from zoo.testing.suite import SUITE

PAGE = read_page("plugins.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]
SET_BY_REGISTRY = {"source", "plugin", "origin", "extends", "local", "selected"}
TROUBLE = "When a plugin does not work"
ADDRESS = "https://example.org/leafnet-00000000.pth"


@pytest.fixture
def runner(page_folder, tmp_path_factory, monkeypatch, capsys):
    # A cached family is keyed by distribution and version, which other tests install as well.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    runner = PageRunner(page_folder, monkeypatch, capsys)
    yield runner
    runner.forget()


def publish(runner, file_server) -> None:
    """Serve the page's `lab` weights from a local server instead of `ADDRESS`."""
    tensors = zoo.get("leafnet").build().state_dict()
    path = runner.folder / "published.pth"
    torch.save({f"net.{name}": tensor for name, tensor in tensors.items()}, path)
    server, digits = file_server(path.read_bytes())
    path.unlink()
    runner.instead[ADDRESS] = f"{server}/leafnet-{digits}.pth"


# Of the folder, after a section.
CHECKS = SectionChecks()


def record_of(folder, run):
    return json.loads((folder / "runs" / run / "run.json").read_text())


@CHECKS.after("A package in one command")
def _(folder):
    stated = [cell.strip("`") for cell, _ in table("file")]
    assert all((folder / "zoo-leafnet" / path).is_file() for path in stated)
    assert len(stated) == 4
    assert record_of(folder, "leafnet_tiny-1")["plan"]["backbone"] == "leafnet/leafnet_tiny"


@CHECKS.after("Weights")
def _(folder):
    assert record_of(folder, "leafnet-2")["plan"]["weights"] == "v1"
    assert record_of(folder, "lab")["plan"]["weights"] == "lab"


@CHECKS.after("Observe a training")
def _(folder):
    named = (folder / "runs" / "watched" / "worst" / "class.txt").read_text()
    assert named in record_of(folder, "watched")["plan"]["classes"]


@pytest.mark.slow
def test_plugins_page_runs(runner, file_server):
    codes = []
    rows = re.findall(r"^\| `((?:[A-Z_]+=\S* )?zoo [^`]+)` \| (\d) \|$", TEXT, re.MULTILINE)
    for heading, blocks in PAGE.sections.items():
        for block in blocks:
            if ADDRESS in block.text:
                publish(runner, file_server)
            runner.execute(block)
            if block.kind == "console":
                codes.append((heading, runner.code))
        CHECKS.get(heading, lambda folder: None)(runner.folder)
    assert {line: runner.run(line)[0] for line, _ in rows} == {line: int(c) for line, c in rows}
    assert len(rows) == len(table("command"))
    assert runner.done == len(BLOCKS) == TEXT.count("\n```") / 2
    assert [code for code in codes if code[1]] == [
        ("Weights", zoo.ExitCode.USAGE),
        ("Conformance", zoo.ExitCode.BROKEN),
        ("Options of a plugin", zoo.ExitCode.USAGE),
        (TROUBLE, zoo.ExitCode.BROKEN),
        (TROUBLE, zoo.ExitCode.USAGE),
    ]


def test_plugins_page_every_block_is_executed():
    kinds = {"file" if file_named_by(block) else block.kind for block in BLOCKS}
    assert {f"_do_{kind}" for kind in kinds} == {
        n for n in vars(PageRunner) if n.startswith("_do_")
    }
    assert len(BLOCKS) == TEXT.count("\n```") / 2
    assert all(block.text.startswith("# in ") for block in BLOCKS if is_toml_part(block))


def is_toml_part(block) -> bool:
    return block.kind == "toml" and "\nschema = 1\n" not in block.text


def table(head: str) -> list[tuple[str, str]]:
    """Return the rows of the table whose header starts with `head`: first cell, other cells."""
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    rows = [line.strip("| ").partition(" | ") for line in body]
    return [(first, rest) for first, _, rest in rows]


@pytest.mark.parametrize("described", [zoo.Head, zoo.Backbone, zoo.Weights, zoo.Preprocess])
def test_plugins_page_documents_every_field(described):
    rows = table(f"field of `{described.__name__}`")
    stated = [name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(stated) == sorted(
        field.name for field in fields(described) if field.name not in SET_BY_REGISTRY
    )
    assert all(meaning for _, meaning in rows)


def test_plugins_page_documents_all_of_zoo_isolated():
    rows = dict(table("`zoo_isolated`"))
    members = {name for name in vars(IsolatedZoo) if not name.startswith("_")}
    attributes = {
        name for name in IsolatedZoo.__init__.__annotations__ if name in ("cache", "config")
    }
    stated = {re.match(r"`(\w+)", cell)[1] for cell in rows}
    assert stated == members | attributes
    assert {"register(plugin, name=None)", "register_builtins(*names)", "get(name)"} <= {
        cell.strip("`") for cell in rows
    }


def test_plugins_page_lists_conformance_checks():
    assert table("check") == [(f"`{check.name}`", check.requirement) for check in SUITE]


def test_plugins_page_links_resolve():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert links
    for link in links:
        assert (DOCS / link.partition("#")[0]).exists(), link
