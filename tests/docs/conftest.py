"""A folder to work in as the pages have it, and weights as a download would have left them."""

import shutil
from pathlib import Path

import pytest

from tests.docs.workplace import copy_pictures, leave_download
from zoo.tasks.classification.data.sources import EMBEDDED


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with `photos/` (train, val and test), `more_photos/` and `cat.jpg`."""
    copy_pictures(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos" / "test", tmp_path / "more_photos")
    cat = sorted((EMBEDDED / "val" / "mammal").iterdir())[0]
    shutil.copyfile(cat, tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory, shared_cache):
    """Give what leaves weights behind as a download would; its `home` is their `TORCH_HOME`."""
    home = tmp_path_factory.mktemp("torch")
    done: set[str] = set()

    def download(name: str) -> None:
        if name not in done:
            leave_download(name, shared_cache, home)
        done.add(name)

    download.home = home
    return download
