"""docs/plugins.md: every block of it is executed, in order, and its tables are true."""

import json
import re
from dataclasses import fields

import pytest
import torch

import zoo
from tests.docs.passages import DOCS, read_page
from tests.docs.workshop import Workshop, file_named_by
from zoo.testing.suite import SUITE

PAGE = read_page("plugins.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]
OF_THE_REGISTRY = {"source", "plugin", "origin", "extends"}
TROUBLE = "When a plugin does not work"
ADDRESS = "https://example.org/leafnet-00000000.pth"


@pytest.fixture
def workshop(workplace, tmp_path_factory, monkeypatch, capsys):
    # What is kept of a family goes by its distribution's version, and here is another of that name.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    made = Workshop(workplace, monkeypatch, capsys)
    yield made
    made.forget()


def publish(workshop, file_server) -> None:
    """Put what the page calls the laboratory's weights where it says that they are, nearly."""
    tensors = zoo.get("leafnet").build().state_dict()
    path = workshop.folder / "published.pth"
    torch.save({f"net.{name}": tensor for name, tensor in tensors.items()}, path)
    server, digits = file_server(path.read_bytes())
    path.unlink()
    workshop.instead[ADDRESS] = f"{server}/leafnet-{digits}.pth"


CHECKS = {}


def says(heading):
    """Register what has to be so after a section, beside what it shows."""

    def register(check):
        CHECKS[heading] = check
        return check

    return register


def record_of(folder, run):
    return json.loads((folder / "runs" / run / "run.json").read_text())


@says("A package in one command")
def _(folder):
    stated = [cell.strip("`") for cell, _ in table("file")]
    assert all((folder / "zoo-leafnet" / path).is_file() for path in stated)
    assert len(stated) == 4
    assert record_of(folder, "leafnet_tiny-1")["plan"]["backbone"] == "leafnet/leafnet_tiny"


@says("Weights")
def _(folder):
    assert record_of(folder, "leafnet-2")["plan"]["weights"] == "v1"
    assert record_of(folder, "lab")["plan"]["weights"] == "lab"


@says("Observe a training")
def _(folder):
    named = (folder / "runs" / "watched" / "worst" / "class.txt").read_text()
    assert named in record_of(folder, "watched")["plan"]["classes"]


@pytest.mark.slow
def test_the_whole_page_runs(workshop, file_server):
    codes = []
    rows = re.findall(r"^\| `((?:[A-Z_]+=\S* )?zoo [^`]+)` \| (\d) \|$", TEXT, re.MULTILINE)
    for heading, blocks in PAGE.sections.items():
        for block in blocks:
            if ADDRESS in block.text:
                publish(workshop, file_server)
            workshop.execute(block)
            if block.kind == "console":
                codes.append((heading, workshop.code))
        CHECKS.get(heading, lambda folder: None)(workshop.folder)
    assert {line: workshop.run(line)[0] for line, _ in rows} == {line: int(c) for line, c in rows}
    assert len(rows) == len(table("command"))
    assert workshop.done == len(BLOCKS) == TEXT.count("\n```") / 2
    assert [code for code in codes if code[1]] == [
        ("Weights", zoo.ExitCode.USAGE),
        ("The contract", zoo.ExitCode.BROKEN),
        (TROUBLE, zoo.ExitCode.BROKEN),
        (TROUBLE, zoo.ExitCode.USAGE),
    ]


def test_no_block_is_of_a_kind_that_is_not_executed():
    kinds = {"file" if file_named_by(block) else block.kind for block in BLOCKS}
    assert {f"_do_{kind}" for kind in kinds} == {n for n in vars(Workshop) if n.startswith("_do_")}
    assert len(BLOCKS) == TEXT.count("\n```") / 2
    assert all(block.text.startswith("# in ") for block in BLOCKS if is_toml_part(block))


def is_toml_part(block) -> bool:
    return block.kind == "toml" and not block.text.startswith("# registry.toml")


def table(head: str) -> list[tuple[str, str]]:
    """Return the rows of a table by its header's first cell: the first cell, and the rest."""
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    rows = [line.strip("| ").partition(" | ") for line in body]
    return [(first, rest) for first, _, rest in rows]


@pytest.mark.parametrize("described", [zoo.Head, zoo.Backbone, zoo.Weights])
def test_every_field_of_a_description_is_explained(described):
    rows = table(f"field of `{described.__name__}`")
    stated = [name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(stated) == sorted(
        field.name for field in fields(described) if field.name not in OF_THE_REGISTRY
    )
    assert all(meaning for _, meaning in rows)


def test_the_promises_are_the_suites():
    assert table("promise") == [(f"`{check.name}`", check.promise) for check in SUITE]


def test_every_link_resolves():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert links
    for link in links:
        assert (DOCS / link.partition("#")[0]).exists(), link
