"""docs/tutorial.md: every command runs, in order, and its images exist."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from tests.docs.page_runner import PageRunner
from tests.docs.passages import DOCS, read_page

PAGE = read_page("tutorial.md")
TEXT = PAGE.path.read_text(encoding="utf-8")


def one_command_each(block):
    """Return a console block as one block for each of its commands."""
    if block.kind != "console":
        return [block]
    return [replace(block, text=f"$ {part}") for part in block.text.split("$ ")[1:]]


@pytest.mark.slow  # trains and converts a network, in a quarter of a minute
def test_tutorial_runs(page_folder, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner = PageRunner(page_folder, monkeypatch, capsys)
    blocks = [block for blocks in PAGE.sections.values() for block in blocks]
    assert blocks[0].text.startswith("photos/train/flag/")  # the layout of the folder
    for block in blocks[1:]:
        for each in one_command_each(block):
            runner.execute(each)
    assert runner.printed.strip() == "mammal"
    assert (page_folder / "runs" / "photos" / "report.html").stat().st_size > 10_000
    with Image.open("cat.jpg.explain.png") as shown, Image.open(DOCS / "tutorial-map.png") as ours:
        assert shown.size == ours.size


def test_links_of_tutorial_resolve():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) >= 5
    assert all((DOCS / link).exists() for link in links)
    assert "docs/tutorial.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
