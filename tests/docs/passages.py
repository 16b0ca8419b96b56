"""The pages of docs/: passages of code under headings, and how to run them.

A `python` block runs in the page's one namespace. Of an `sh` block each line that starts with `zoo`
runs as a command. A `console` block shows a command after `$` and what it answers, to the letter,
where `...` stands for anything.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import main

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and the line of the page that it starts on."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """A page by heading, and the names that its code has made so far."""

    path: Path
    sections: dict[str, list[Block]]
    names: dict[str, Any] = field(default_factory=dict)

    def blocks(self, heading: str, kind: str | None = None) -> list[Block]:
        """Return the blocks under a heading, of one kind or of all."""
        return [block for block in self.sections[heading] if kind in (None, block.kind)]

    def run_python(self, block: Block) -> dict[str, Any]:
        """Execute a block in the page's namespace, so that tracebacks name the page's lines."""
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(self.path), "exec"), self.names)
        return self.names


def read_page(name: str) -> Page:
    """Cut a page of docs/ into its headings and blocks."""
    path = DOCS / name
    sections: dict[str, list[Block]] = {}
    heading, kind, start, lines = "", None, 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)", line)
        if kind is None and (found := re.match(r"#+ (.*)", line)):
            heading = found[1]
        elif kind is None and fence:
            kind, start, lines = fence[1], number + 1, []
        elif kind is not None and fence:
            sections.setdefault(heading, []).append(Block(kind, "\n".join(lines) + "\n", start))
            kind = None
        elif kind is not None:
            lines.append(line)
        sections.setdefault(heading, [])
    return Page(path, sections)


def joined(block: Block) -> str:
    """Return a block's text with lines that end in a backslash joined to the next."""
    return re.sub(r"\s*\\\n\s*", " ", block.text)


def commands(block: Block) -> list[list[str]]:
    """Return the zoo commands of a block, their arguments split as a shell does."""
    lines = [line.removeprefix("$ ") for line in joined(block).splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


def run_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a zoo command in this process; return its exit code, stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    said = capsys.readouterr()
    return int(ending.value.code or 0), said.out, said.err


def check_console(block: Block, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the command of a console block, and hold what it answers against what the page shows."""
    (arguments,) = commands(block)
    shown = joined(block).partition("\n")[2].strip()
    code, out, err = run_command(arguments, capsys)
    answered = (out + err).strip()
    pattern = shown.replace("[", "[[]").replace("...", "*")
    assert fnmatchcase(answered, pattern), f"{block.line}: it answers\n{answered}\nand not\n{shown}"
    return code
