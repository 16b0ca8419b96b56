"""What stands in the cache: found, bounded, cleared, and left alone while it is used."""

import json
import os
import subprocess
import sys

import pytest

from tests.processes import started
from zoo.cache import DIGEST, features_dir, held, locked, remove, trim


@pytest.fixture(autouse=True)
def alone(own_cache):
    return own_cache


def shelf(name: str, images: int, used: float):
    folder = features_dir() / name
    folder.mkdir(parents=True)
    (folder / "shelf.json").write_text(json.dumps({"backbone": f"a/{name}"}))
    (folder / "x.rows").write_bytes(bytes(1000 * images))
    (folder / "x.index").write_bytes(bytes(DIGEST * images))
    for path in folder.iterdir():
        os.utime(path, (used, used))
    return folder


def test_shelves_are_found_with_what_they_hold():
    shelf("new", 3, 2000.0)
    shelf("old", 5, 1000.0)
    (features_dir() / "old.lock").touch()
    old, new = held("features")
    assert (old.name, old.images, new.name, new.images) == ("a/old", 5, "a/new", 3)
    assert old.size == 5 * 1032 + len('{"backbone": "a/old"}')
    assert old.used == 1000.0
    assert held("weights") == []


def test_a_shelf_that_says_nothing_is_still_there(alone):
    shelf("odd", 1, 1.0)
    (features_dir() / "odd/shelf.json").write_text("[")
    assert [each.name for each in held("features")] == ["odd"]


def test_the_longest_unused_make_room():
    folders = [shelf(name, 10, used) for name, used in (("c", 3e3), ("a", 1e3), ("b", 2e3))]
    one = held("features")[0].size
    gone = trim(2 * one, keep=folders[0])
    assert [each.path for each in gone] == [folders[1]]
    assert [each.name for each in held("features")] == ["a/b", "a/c"]
    # What is in use stays, whatever it takes.
    assert [each.name for each in trim(0, keep=folders[0])] == ["a/b"]
    assert folders[0].exists()


def test_what_another_process_uses_stays():
    folder = shelf("busy", 1, 1.0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom zoo.cache import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with started([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe) as process:
        check_in_use(folder, process)


def check_in_use(folder, process):
    assert process.stdout.readline() == "held\n"
    (each,) = held("features")
    with locked(folder) as shared:
        assert shared
    assert not remove(each)
    assert trim(0, keep=folder.with_name("other")) == []
    assert folder.exists()
    process.kill()  # the system lets go of the lock
    process.wait()
    assert remove(each)
    assert not folder.exists()
    assert remove(each)  # gone already


def test_the_command_shows_and_clears(zoo_process):
    shelf("mine", 2, 1e9)
    environment = {"XDG_CACHE_HOME": str(features_dir().parents[1])}
    shown = zoo_process("cache", **environment)
    assert shown.returncode == 0
    assert "a/mine" in shown.stdout
    assert "features may take 20 GiB" in shown.stderr
    (row,) = json.loads(zoo_process("cache", "--json", **environment).stdout)
    assert row["images"] == 2
    assert row["kind"] == "features"
    assert set(row) >= {"kind", "name", "path", "bytes", "used", "images"}
    wrong = zoo_process("cache", "clear", "a/mien", **environment)
    assert wrong.returncode == 2
    assert "a/mine" in wrong.stderr
    assert zoo_process("cache", "clear", "weights", **environment).stdout.startswith("deleted 0")
    done = zoo_process("cache", "clear", "mine", **environment)
    assert done.stdout.startswith("deleted 1 entries")
    assert held("features") == []
