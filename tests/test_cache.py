"""Cache entries: listed, bounded, deleted, and skipped while a process uses them."""

import json
import os
import subprocess
import sys

import pytest

from tests.processes import shell, started
from zoo.cache import DIGEST, entries, features_dir, locked, remove, trim
from zoo.files import cache_dir


@pytest.fixture(autouse=True)
def empty_cache(own_cache):
    return own_cache


def make_store(name: str, images: int, used: float):
    folder = features_dir() / name
    folder.mkdir(parents=True)
    (folder / "store.json").write_text(json.dumps({"backbone": f"a/{name}"}))
    (folder / "x.rows").write_bytes(bytes(1000 * images))
    (folder / "x.index").write_bytes(bytes(DIGEST * images))
    for path in folder.iterdir():
        os.utime(path, (used, used))
    return folder


def test_entries_describe_feature_stores():
    make_store("new", 3, 2000.0)
    make_store("old", 5, 1000.0)
    (features_dir() / "old.lock").touch()
    old, new = entries("features")
    assert (old.name, old.images, new.name, new.images) == ("a/old", 5, "a/new", 3)
    assert old.size == 5 * 1032 + len('{"backbone": "a/old"}')
    assert old.used == 1000.0
    assert entries("weights") == []


def test_entries_list_store_with_damaged_metadata():
    make_store("odd", 1, 1.0)
    (features_dir() / "odd/store.json").write_text("[")
    assert [entry.name for entry in entries("features")] == ["odd"]


def test_trim_deletes_least_recently_used():
    folders = [make_store(name, 10, used) for name, used in (("c", 3e3), ("a", 1e3), ("b", 2e3))]
    one = entries("features")[0].size
    deleted = trim(2 * one, keep=folders[0])
    assert [entry.path for entry in deleted] == [folders[1]]
    assert [entry.name for entry in entries("features")] == ["a/b", "a/c"]
    # The store in use is never deleted.
    assert [entry.name for entry in trim(0, keep=folders[0])] == ["a/b"]
    assert folders[0].exists()


def test_remove_skips_store_locked_by_another_process():
    folder = make_store("busy", 1, 1.0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom zoo.cache import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with started([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe) as process:
        check_locked(folder, process)


def check_locked(folder, process):
    assert process.stdout.readline() == "locked\n"
    (entry,) = entries("features")
    with locked(folder) as shared:
        assert shared
    assert not remove(entry)
    assert trim(0, keep=folder.with_name("other")) == []
    assert folder.exists()
    process.kill()  # the system releases the lock
    process.wait()
    assert remove(entry)
    assert not folder.exists()
    assert remove(entry)  # already deleted


def test_command_lists_and_clears(zoo_process):
    make_store("mine", 2, 1e9)
    environment = {"XDG_CACHE_HOME": str(features_dir().parents[1])}
    shown = zoo_process("cache", **environment)
    assert shown.returncode == 0
    assert "a/mine" in shown.stdout
    assert "features and conversions are limited to 20 GiB" in shown.stderr
    (row,) = json.loads(zoo_process("cache", "--json", **environment).stdout)
    assert row["images"] == 2
    assert row["kind"] == "features"
    assert set(row) >= {"kind", "name", "path", "bytes", "used", "images"}
    wrong = zoo_process("cache", "clear", "a/mien", **environment)
    assert wrong.returncode == 2
    assert "a/mine" in wrong.stderr
    assert zoo_process("cache", "clear", "weights", **environment).stdout.startswith("deleted 0")
    done = zoo_process("cache", "clear", "mine", **environment)
    assert done.stdout.startswith("deleted 1 entry, ")
    assert entries("features") == []


def test_clear_goes_on_after_an_entry_that_cannot_be_deleted(tmp_path, stranger):
    kept = [make_store(name, 2, 1e9) for name in ("one", "two")]
    catalogue = cache_dir() / "catalogues" / "x.json"
    catalogue.parent.mkdir()
    catalogue.write_text("{}")
    features_dir().chmod(0o555)
    try:
        code, out, err = shell(f"{stranger} zoo cache clear", tmp_path)
    finally:
        features_dir().chmod(0o755)
    assert code == 6
    assert out.startswith("deleted 1 entry, ")
    assert all(f"{folder}.lock: Permission denied" in err for folder in kept)
    assert [folder.exists() for folder in (*kept, catalogue)] == [True, True, False]
