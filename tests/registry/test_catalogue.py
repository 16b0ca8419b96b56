"""A command that imports torch in any case enumerates a family in its own process."""

import os
import subprocess
import sys

import pytest

from zoo.registry.catalogue import catalogue_file, load_catalogue
from zoo.registry.registry import load_registry
from zoo.spec import Family

CATALOGUE = """
import os
import zoo

def backbones():
    assert os.read(0, 1) == b"", "it reads the stdin of the command"
    fixed = {"heads": (zoo.Head("fc"),), "preprocess": zoo.Preprocess(size=8)}
    yield zoo.Backbone(name=f"by_{os.getpid()}", builder="leaflib:build", **fixed)
"""
FAMILY = Family("leaflib", "leaflib.catalogue:backbones")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that enumerates an installed library anew: whether in this process."""
    site, other = tmp_path / "site", tmp_path / "other"
    for folder in ("leaflib", "leaflib-1.dist-info"):
        (site / folder).mkdir(parents=True)
    (site / "leaflib/__init__.py").touch()
    (site / "leaflib/catalogue.py").write_text(CATALOGUE)
    (site / "leaflib-1.dist-info/METADATA").write_text("Name: leaflib\nVersion: 1\n")
    other.mkdir()
    (other / "leaflib.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)

    def forget():
        for name in ("leaflib", "leaflib.catalogue"):
            sys.modules.pop(name, None)

    def enumerate_anew(cache, imported=False, hidden=False, **options):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        if not imported:
            forget()
        if hidden:
            monkeypatch.syspath_prepend(other)
        [name] = load_catalogue(FAMILY, print, **options)
        return name == f"by_{os.getpid()}"

    yield enumerate_anew
    forget()


def test_family_is_enumerated_here_only_when_computing(load):
    assert not load("light")
    assert load("computing", computing=True)


def test_imported_or_hidden_library_is_enumerated_in_subprocess(load):
    assert load("first", computing=True)
    # A plugin may have added to it.
    assert not load("imported", computing=True, imported=True)
    assert not load("hidden", computing=True, hidden=True)


def test_subprocess_does_not_read_stdin(load):
    reader, writer = os.pipe()
    own = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.write(writer, b"cat.jpg")
        assert not load("light")
        assert os.read(0, 100) == b"cat.jpg"
    finally:
        os.dup2(own, 0)
        for each in (reader, writer, own):
            os.close(each)


def test_catalogue_of_timm_is_same_from_either_process(tmp_path):
    code = (
        "import sys; from zoo.registry.registry import load_registry as load;"
        "load(computing=True).get('timm/resnet18'); print('timm' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr
    [here] = (tmp_path / "zoo/catalogues").glob("timm*")
    registered = next(r for r in load_registry().host.records if r.name == "timm").backbones
    [family] = [item for item in registered if isinstance(item, Family)]
    load_catalogue(family, print)
    assert here.read_bytes() == catalogue_file(family).read_bytes()
