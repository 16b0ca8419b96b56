"""Trainings as processes, in a folder and a cache of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Work in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def finetune(tinynet, image_folder):
    """Return a function from options to the command that trains a tiny network."""

    def command(*options: object) -> list[str]:
        given = ["--data", image_folder, "--weights", "none", "--device", "cpu", *options]
        return zoo_command("finetune", tinynet, *given)

    return command


def zoo_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "zoo", *map(str, arguments)]
