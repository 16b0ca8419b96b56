"""docs/publishing.md: the package is written, built, installed and checked as its CI does."""

import os
import re
import shlex
import subprocess
import sys
import zipfile

import pytest

from tests.cli.test_plugins_new import ENVIRONMENT, NEEDS_UV, UV, install_with_uv
from tests.docs.page_runner import PageRunner
from tests.docs.passages import Block, read_page

PAGE = read_page("publishing.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]


class PublishingRunner(PageRunner):
    """Also builds wheels, and runs the steps of a workflow in an environment of its own."""

    def _run_pip(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "install":
            return super()._run_pip(words)
        assert words == ["wheel", "--no-deps", "--wheel-dir", "dist", "zoo-leafnet"]
        command = [UV, "build", "--wheel", "--out-dir", "dist", "zoo-leafnet"]
        for offline in (["--offline"], []):
            done = subprocess.run(
                [*command, *offline], capture_output=True, text=True, env=ENVIRONMENT
            )
            if done.returncode == 0:
                break
        return done.returncode, done.stderr

    def _do_yaml(self, block: Block) -> None:
        lines = re.findall(r"- run: (.+)", block.text)
        assert lines.pop(0) == "pip install . pytest"
        (wheel,) = (self.folder / "dist").glob("*.whl")
        install_with_uv(wheel, self.folder / "installed")
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "installed"),
            "ZOO_STRICT": "1",
        }
        for line in lines:
            command = [sys.executable, "-m", *shlex.split(line)]
            done = subprocess.run(
                command,
                cwd=self.folder / "zoo-leafnet" / "tests",  # not beside the package itself
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@NEEDS_UV
def test_publishing_page_builds_a_wheel_that_conforms(page_folder, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-timm,-regression")
    runner = PublishingRunner(page_folder, monkeypatch, capsys)
    for block in BLOCKS:
        runner.execute(block)
    runner.forget()
    assert runner.done == len(BLOCKS) == TEXT.count("\n```") / 2
    (wheel,) = (page_folder / "dist").glob("zoo_leafnet-0.1.0-*.whl")
    assert "zoo_leafnet/v1.safetensors" in zipfile.ZipFile(wheel).namelist()
    assert (
        runner.instead["0" * 64] in (page_folder / "zoo-leafnet/zoo_leafnet/plugin.py").read_text()
    )
