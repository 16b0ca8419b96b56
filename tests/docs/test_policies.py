"""docs/policies.md: its commands run, and its tables are those of the code."""

import re

import pytest

import zoo
from tests.docs.passages import check_console, read_page
from zoo.models.builder import build_on_meta
from zoo.models.stages import find_stages
from zoo.options.table import RECIPES

PAGE = read_page("policies.md")
TEXT = PAGE.path.read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """Return the cells of the table whose header starts with `head`."""
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in body]


def test_policies_page_commands_print_as_documented(page_folder, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression")
    blocks = [block for heading in PAGE.sections for block in PAGE.blocks(heading)]
    assert {block.kind for block in blocks} == {"console"}
    assert [check_console(block, capsys) for block in blocks] == [0, zoo.ExitCode.USAGE]


@pytest.mark.parametrize(("name", "count", "last"), table("network"))
def test_policies_page_states_the_stages(name, count, last):
    backbone = zoo.get(name.strip("`"))
    stages = find_stages(
        build_on_meta(backbone, backbone.kwargs), [head.module_path for head in backbone.heads]
    )
    assert (str(len(stages)), re.findall(r"`([^`]+)`", last)) == (count, stages[-1])


def test_policies_page_lists_every_recipe():
    listed = {name.strip("`"): phases for name, phases in table("`--recipe`")}
    assert {name: tuple(re.findall(r"`([^`]+)`", phases)) for name, phases in listed.items()} == {
        name: tuple(policies) for name, policies in RECIPES.items()
    }
