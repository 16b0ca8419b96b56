"""docs/tasks.md: every block of it is executed, in order, and its tables are true."""

import re

import pytest

import zoo
from tests.docs.passages import DOCS, read_page
from tests.docs.workshop import Workshop
from zoo.tasks.base import BaseTask
from zoo.testing.task_suite import TASK_SUITE

PAGE = read_page("tasks.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]


@pytest.fixture
def workshop(workplace, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    # As a current folder is for `python -m`, and for the processes of the conformance kit.
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    made = Workshop(workplace, monkeypatch, capsys)
    yield made
    made.forget()


def test_the_whole_page_runs(workshop):
    codes = []
    for heading, blocks in PAGE.sections.items():
        for block in blocks:
            workshop.execute(block)
            codes += [(heading, workshop.code)] if block.kind == "console" else []
    assert workshop.done == len(BLOCKS) == TEXT.count("\n```") / 2
    assert [code for code in codes if code[1]] == [
        ("Train, evaluate, predict", zoo.ExitCode.DATA),
        ("Test it", zoo.ExitCode.BROKEN),
    ]
    # The class of two lines is for the tests of a package, so that the plugin is installed first.
    info = workshop.folder / "brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nbrightness = brightness\n")
    code, said = workshop.run("pytest test_value.py")
    assert (code, f"{len(TASK_SUITE)} passed" in said) == (0, True), said


def table(head: str) -> list[list[str]]:
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in body]


def test_the_promises_are_the_suite_s():
    assert table("promise") == [[f"`{check.name}`", check.promise] for check in TASK_SUITE]


def test_every_part_of_a_task_is_explained():
    stated = {name for _, cell, _ in table("it decides") for name in re.findall(r"`(\w+)`", cell)}
    parts = {name for name in vars(BaseTask) if not name.startswith("_")} | {"name"}
    assert parts - stated == {"name", "loss_name", "schema_from_dict", "open_all"}
    assert stated <= parts
    for name in BaseTask.__abstractmethods__:
        (row,) = (row for row in table("it decides") if f"`{name}`" in row[1])
        assert "required" in row[2]


def test_every_link_resolves():
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        assert (DOCS / link.partition("#")[0]).exists(), link
