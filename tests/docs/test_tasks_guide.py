"""Execute every block of docs/tasks.md in order, and compare its tables with the code."""

import re

import pytest

import zoo
from tests.docs.page_runner import PageRunner
from tests.docs.passages import DOCS, read_page
from zoo.tasks.base import BaseTask
from zoo.tasks.printing import PrintingTask
from zoo.tasks.reports import ReportingTask
from zoo.testing.task_suite import TASK_SUITE

PAGE = read_page("tasks.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]


@pytest.fixture
def runner(page_folder, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    runner = PageRunner(page_folder, monkeypatch, capsys)
    yield runner
    runner.forget()


@pytest.mark.slow
def test_tasks_guide_blocks_run_in_order(runner):
    codes = []
    for heading, blocks in PAGE.sections.items():
        for block in blocks:
            runner.execute(block)
            codes += [(heading, runner.code)] if block.kind == "console" else []
    assert runner.done == len(BLOCKS) == TEXT.count("\n```") / 2
    assert [code for code in codes if code[1]] == [
        ("Train, evaluate, predict", zoo.ExitCode.DATA),
        ("Test it", zoo.ExitCode.BROKEN),
    ]
    # `TaskContract` is for the tests of an installed package.
    info = runner.folder / "brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nbrightness = brightness\n")
    code, output = runner.run("pytest test_value.py")
    assert (code, f"{len(TASK_SUITE)} passed" in output) == (0, True), output


def table(head: str) -> list[list[str]]:
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in body]


def test_tasks_guide_lists_every_check():
    assert table("check") == [[f"`{check.name}`", check.requirement] for check in TASK_SUITE]


def test_tasks_guide_lists_every_method():
    listed = {name for _, cell, _ in table("definition") for name in re.findall(r"`(\w+)`", cell)}
    both = {**vars(ReportingTask), **vars(PrintingTask), **vars(BaseTask)}
    members = {name for name in both if not name.startswith("_")} | {"name"}
    assert members - listed == {"name", "loss_name", "schema_from_dict", "open_all"}
    assert listed <= members
    for name in BaseTask.__abstractmethods__:
        (row,) = (row for row in table("definition") if f"`{name}`" in row[1])
        assert "required" in row[2]


def test_tasks_guide_links_resolve():
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        assert (DOCS / link.partition("#")[0]).exists(), link
