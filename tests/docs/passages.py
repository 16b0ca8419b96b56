"""Parse and run the code blocks of a page of docs/.

All `python` blocks share one namespace. Each line of an `sh` block that starts with `zoo` is a
command. A `console` block has a command after `$` and its exact output, where `...` matches any
text.
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
    """A fenced block: its kind, its text, and its first line on the page."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """The blocks of a page by heading, and the namespace of its code."""

    path: Path
    sections: dict[str, list[Block]]
    names: dict[str, Any] = field(default_factory=dict)

    def blocks(self, heading: str, kind: str | None = None) -> list[Block]:
        """Return the blocks under a heading, optionally of one kind."""
        return [block for block in self.sections[heading] if kind in (None, block.kind)]

    def run_python(self, block: Block) -> dict[str, Any]:
        """Execute a block in the page's namespace, with the page's line numbers in tracebacks."""
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(self.path), "exec"), self.names)
        return self.names


def read_page(name: str) -> Page:
    """Parse a page of docs/ into headings and blocks."""
    path = DOCS / name
    sections: dict[str, list[Block]] = {}
    heading, kind, start, lines = "", None, 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)", line)
        if kind is None and (match := re.match(r"#+ (.*)", line)):
            heading = match[1]
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
    """Return the text of a block, backslash continuations joined."""
    return re.sub(r"\s*\\\n\s*", " ", block.text)


def commands(block: Block) -> list[list[str]]:
    """Return the arguments of each zoo command of a block."""
    lines = [line.removeprefix("$ ") for line in joined(block).splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("zoo ")]


def run_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a zoo command in this process; return its exit code, stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    output = capsys.readouterr()
    return int(exit_info.value.code or 0), output.out, output.err


def check_console(block: Block, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the command of a console block, compare its output, and return its exit code."""
    (arguments,) = commands(block)
    expected = joined(block).partition("\n")[2].strip()
    code, out, err = run_command(arguments, capsys)
    output = (out + err).strip()
    pattern = expected.replace("[", "[[]").replace("...", "*")
    assert fnmatchcase(output, pattern), f"{block.line}: printed\n{output}\nexpected\n{expected}"
    return code
