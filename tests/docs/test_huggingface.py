"""docs/huggingface.md: every block runs, in order; it needs the dependency group `huggingface`."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.page_runner import PageRunner
from tests.docs.passages import read_page

PAGE = read_page("huggingface.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]
ROOT = Path(__file__).parents[2]


def test_huggingface_page_blocks_run_in_order(page_folder, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="`--group huggingface` installs it")
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(page_folder))
    runner = PageRunner(page_folder, monkeypatch, capsys)
    for block in BLOCKS:
        runner.execute(block)
    runner.forget()
    assert runner.done == len(BLOCKS) == TEXT.count("\n```") / 2
    assert runner.code == 0


def test_contributing_names_the_group_of_the_page():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    (requirement,) = groups["huggingface"]
    assert re.match("transformers==", requirement)
    command = "uv run --group huggingface pytest tests/docs/test_huggingface.py"
    assert command in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
