"""Execute docs/plugins.md: write files, install packages, run commands.

A `python` or `toml` block whose first line is `# PATH` is a file of that name; `# in PATH` is a
part of an existing file. Every line of an `sh` block runs, and must exit with 0.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.docs.passages import Block, joined
from zoo.cli import main
from zoo.testing.fixtures import reset_caches


def file_named_by(block: Block) -> str | None:
    """Return the path in the first line of a file block; None for other blocks."""
    match = re.match(r"# (in )?([\w./-]+\.(?:py|toml))\n", block.text)
    return match[2] if match and block.kind in ("python", "toml") else None


def matches(output: str, expected: str) -> bool:
    """Return whether an output is as documented, where `...` matches any text."""
    return fnmatchcase(output.strip(), expected.strip().replace("[", "[[]").replace("...", "*"))


class SectionChecks(dict[str, Callable[..., None]]):
    """Checks that run after the sections of a page, by heading."""

    def after(self, heading: str) -> Callable[[Callable[..., None]], None]:
        """Return a decorator that adds a check."""
        return lambda check: self.update({heading: check})


class PageRunner:
    """Executes the blocks of a page in a folder.

    Args:
        folder: the current folder.
        monkeypatch: for changes to the environment of the test.
        capsys: captures the output of Python blocks.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        self.instead: dict[str, str] = {}
        self.names: dict[str, Any] = {}
        self.done = 0

    def forget(self) -> None:
        """Drop the registry and all modules imported from the folder."""
        reset_caches()
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{self.folder}/"):
                del sys.modules[name]
        importlib.invalidate_caches()

    def execute(self, block: Block) -> None:
        """Execute a block, and compare its output with the page."""
        self.forget()
        kind = "file" if file_named_by(block) else block.kind
        getattr(self, f"_do_{kind}")(block)
        self.done += 1

    def _do_file(self, block: Block) -> None:
        path = self.folder / str(file_named_by(block))
        if block.text.startswith("# in "):
            self._check_part(tomllib.loads(block.text), tomllib.loads(path.read_text()))
            return
        text = block.text
        for documented, actual in self.instead.items():
            text = text.replace(documented, actual)
        path.write_text(text)

    def _check_part(self, part: Any, whole: Any) -> None:
        if not isinstance(part, dict):
            assert part == whole
            return
        for key, value in part.items():
            self._check_part(value, whole[key])

    def _do_python(self, block: Block) -> None:
        self.capsys.readouterr()
        exec(compile("\n" * (block.line - 1) + block.text, "docs/plugins.md", "exec"), self.names)
        self.printed = self.capsys.readouterr().out

    def _do_text(self, block: Block) -> None:
        assert matches(self.printed, block.text), f"{block.line}: it prints\n{self.printed}"

    def _do_sh(self, block: Block) -> None:
        for line in joined(block).splitlines():
            code, output = self.run(line)
            assert code == 0, f"{block.line}: {line}\n{output}"

    def _do_console(self, block: Block) -> None:
        line, _, expected = joined(block).removeprefix("$ ").partition("\n")
        self.code, output = self.run(line)
        assert matches(output, expected), f"{block.line}: {line} prints\n{output}"

    def run(self, line: str) -> tuple[int, str]:
        """Run a shell line; return its exit code and output."""
        self.forget()
        *settings, command = re.split(r"(?<=^)([A-Z_]+=\S*) ", line)
        words = shlex.split(command)
        with self.monkeypatch.context() as patch:
            for setting in filter(None, settings):
                patch.setenv(*setting.split("="))
            return getattr(self, f"_run_{words[0]}")(words[1:])

    def _run_zoo(self, words: list[str]) -> tuple[int, str]:
        output = io.StringIO()  # stdout and stderr interleaved as in a terminal
        with (
            redirect_stdout(output),
            redirect_stderr(output),
            pytest.raises(SystemExit) as exit_info,
        ):
            main(words)
        return int(exit_info.value.code or 0), output.getvalue()

    def _run_pytest(self, words: list[str]) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def _run_export(self, words: list[str]) -> tuple[int, str]:
        """Set PYTHONPATH for the commands that follow, which run in this process too."""
        assert words == ["PYTHONPATH=$PWD"]
        self.monkeypatch.setenv("PYTHONPATH", str(self.folder))
        self.monkeypatch.syspath_prepend(str(self.folder))
        return 0, ""

    def _run_cp(self, words: list[str]) -> tuple[int, str]:
        shutil.copyfile(*words)
        return 0, ""

    def _run_sha256sum(self, words: list[str]) -> tuple[int, str]:
        # The digest is not known in advance; a reader copies it into the adapter.
        self.instead["0" * 64] = hashlib.sha256(Path(words[0]).read_bytes()).hexdigest()
        return 0, ""

    def _run_pip(self, words: list[str]) -> tuple[int, str]:
        """Install a package as editable: write its metadata, and add its folder to the path."""
        install, editable, package, *others = words
        assert (install, editable, others) == ("install", "-e", ["pytest"])
        folder = self.folder / package
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        site = self.folder / "site"
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head)
        points = "".join(f"{n} = {m}\n" for n, m in project["entry-points"]["zoo"].items())
        (info / "entry_points.txt").write_text(f"[zoo]\n{points}")
        for path in (site, folder):
            self.monkeypatch.syspath_prepend(str(path))
        self.monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(site)]))
        return 0, ""
