"""Fixtures of the pages of docs/: a folder of images, and weights as if downloaded."""

import shutil
from pathlib import Path

import pytest

from tests.docs.page_files import copy_images, write_downloaded_weights
from zoo.tasks.classification.data.sources import EMBEDDED


@pytest.fixture
def page_folder(tmp_path, monkeypatch) -> Path:
    """An empty folder with `photos/` (train, val and test), `more_photos/` and `cat.jpg`."""
    copy_images(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos" / "test", tmp_path / "more_photos")
    cat = sorted((EMBEDDED / "val" / "mammal").iterdir())[0]
    shutil.copyfile(cat, tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory, shared_cache):
    """A function that writes weights as if downloaded; its `home` is their `TORCH_HOME`."""
    home = tmp_path_factory.mktemp("torch")
    done: set[str] = set()

    def download(name: str) -> None:
        if name not in done:
            write_downloaded_weights(name, shared_cache, home)
        done.add(name)

    download.home = home
    return download
