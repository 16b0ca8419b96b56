"""What docs/plugins.md is executed with: files written, packages installed, commands run.

A `python` or `toml` block whose first line is `# PATH` is a file of that name; `# in PATH` is a
part of a file that is there. Of an `sh` block every line runs, and must end well.
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
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.docs.passages import Block, joined
from zoo.cli import main
from zoo.testing.fixtures import reset_caches


def file_named_by(block: Block) -> str | None:
    """Return the file that a block is, or that it is `in`; None where it is none."""
    found = re.match(r"# (in )?([\w./-]+\.(?:py|toml))\n", block.text)
    return found[2] if found and block.kind in ("python", "toml") else None


def matches(answered: str, shown: str) -> bool:
    """Whether a text is as a page shows it, where `...` stands for anything."""
    return fnmatchcase(answered.strip(), shown.strip().replace("[", "[[]").replace("...", "*"))


class Workshop:
    """A folder in which the page is followed, and what it has installed.

    Args:
        folder: the current one.
        monkeypatch: undoes what is set for all of the test.
        capsys: reads what commands say.
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
        """Make this process as new: nothing is imported from the folder, no registry is made."""
        reset_caches()
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{self.folder}/"):
                del sys.modules[name]
        importlib.invalidate_caches()

    def execute(self, block: Block) -> None:
        """Do what a block says, and hold what it shows against what comes of it."""
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
        for shown, meant in self.instead.items():
            text = text.replace(shown, meant)
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
            code, said = self.run(line)
            assert code == 0, f"{block.line}: {line}\n{said}"

    def _do_console(self, block: Block) -> None:
        line, _, shown = joined(block).removeprefix("$ ").partition("\n")
        self.code, said = self.run(line)
        assert matches(said, shown), f"{block.line}: {line} answers\n{said}"

    def run(self, line: str) -> tuple[int, str]:
        """Run a line of shell; return its exit code, and what it says."""
        self.forget()
        *settings, command = re.split(r"(?<=^)([A-Z_]+=\S*) ", line)
        words = shlex.split(command)
        with self.monkeypatch.context() as patch:
            for setting in filter(None, settings):
                patch.setenv(*setting.split("="))
            return getattr(self, f"_run_{words[0]}")(words[1:])

    def _run_zoo(self, words: list[str]) -> tuple[int, str]:
        said = io.StringIO()  # of stdout and stderr, so that their lines are in a terminal's order
        with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ending:
            main(words)
        return int(ending.value.code or 0), said.getvalue()

    def _run_pytest(self, words: list[str]) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def _run_cp(self, words: list[str]) -> tuple[int, str]:
        shutil.copyfile(*words)
        return 0, ""

    def _run_sha256sum(self, words: list[str]) -> tuple[int, str]:
        # The page cannot know the digest; whoever follows it copies this one into the adapter.
        self.instead["0" * 64] = hashlib.sha256(Path(words[0]).read_bytes()).hexdigest()
        return 0, ""

    def _run_pip(self, words: list[str]) -> tuple[int, str]:
        """Install a package as an editable install does: by its metadata, and its folder a path."""
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
