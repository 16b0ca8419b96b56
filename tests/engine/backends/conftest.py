"""Fixtures of the tests of engines."""

import pytest


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)
