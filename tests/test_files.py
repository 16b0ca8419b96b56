"""Atomic file writes and canonical JSON."""

import ast
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import zoo
from tests.processes import started
from zoo import files
from zoo import temporaries as temporary


def test_write_bytes_is_atomic_and_follows_umask(tmp_path):
    path = tmp_path / "deep" / "file"
    before = os.umask(0o027)
    try:
        files.write_bytes(path, b"whole")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_preserves_existing_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with files.writing(path) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITER = (
    "import os, signal, sys; from pathlib import Path; from zoo import files\n"
    "with files.writing(Path(sys.argv[1], 'file')) as file, "
    "files.writing_folder(Path(sys.argv[1], 'folder')) as folder:\n"
    "    file.write(b'half'); file.flush(); folder.write('one', b'half')\n"
    "    print('written', flush=True); sys.stdin.read()\n"
)


@contextlib.contextmanager
def half_written(folder):
    """A process that has written half a file and half a folder, and waits."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(command, **pipes) as process:
        assert process.stdout.readline() == "written\n"
        yield process


def temporaries(folder):
    return [path for path in folder.iterdir() if path.name.startswith(temporary.PREFIX)]


def test_killed_write_preserves_file_and_is_cleaned(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with half_written(tmp_path):
        assert len(temporaries(tmp_path)) == 2
    assert path.read_bytes() == b"old"
    assert len(temporaries(tmp_path)) == 2
    files.write_bytes(tmp_path / "other", b"new")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "other"]


def test_temporaries_of_live_process_are_kept(tmp_path):
    with half_written(tmp_path) as process:
        files.write_bytes(tmp_path / "file", b"new")
        temporary.remove_leftovers(tmp_path)
        assert len(temporaries(tmp_path)) == 2
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "file").read_bytes() == b"half"
    assert files.verify_folder(tmp_path / "folder").keys() == {"one"}
    assert not temporaries(tmp_path)


def test_unlocked_temporary_of_other_host_is_removed_when_old(tmp_path):
    path = tmp_path / f"{temporary.PREFIX}elsewhere-1-0{temporary.PART}"
    path.write_bytes(b"half")
    temporary.remove_leftovers(tmp_path)
    assert path.exists()
    old = time.time() - temporary.FOREIGN_SECONDS - 60
    os.utime(path, (old, old))
    temporary.remove_leftovers(tmp_path)
    assert not path.exists()


def test_writing_refuses_path_that_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(zoo.EnvironmentProblem, match="not a regular file"):
        files.write_bytes(tmp_path / "fifo", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def test_write_is_fsynced_before_and_after_rename(tmp_path):
    trace = tmp_path / "trace"
    code = "import sys; from pathlib import Path; from zoo import files\n"
    code += "files.write_bytes(Path(sys.argv[1]), b'data')\n"
    code += "with files.writing_folder(Path(sys.argv[2])) as folder: folder.write('one', b'1')\n"
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2"]
    command += ["-o", str(trace), sys.executable, "-B", "-c", code]
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    target = tmp_path / "to"
    subprocess.run([*command, str(target / "file"), str(target / "folder")], check=True)
    calls = [line.split(None, 1)[1] for line in trace.read_text().splitlines() if "(" in line]
    order = ["rename" if call.startswith("rename") else call.partition("(")[0] for call in calls]
    # File, rename, its folder; then one, manifest, folder, rename, its folder.
    file, folder = ["fsync", "rename", "fsync"], ["fsync", "fsync", "fsync", "rename", "fsync"]
    assert order == [*file, *folder]
    assert f"<{target}>" in calls[2]
    assert f"<{target}>" in calls[-1]


def test_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "folder"

    def fail():
        with files.writing_folder(path) as folder:
            folder.write("one", b"1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())
    with files.writing_folder(path) as folder:
        folder.write("one", b"1")
        folder.write("deep/two", iter([b"2", b"3"]))
    with pytest.raises(zoo.EnvironmentProblem, match="cannot write"), files.writing_folder(path):
        pass
    assert list(tmp_path.iterdir()) == [path]
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in WRITTEN.items()}
    assert files.verify_folder(path) == digests
    assert {name: (path / name).read_bytes() for name in WRITTEN} == WRITTEN


WRITTEN = {"one": b"1", "deep/two": b"23"}


def test_equal_folders_have_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with files.writing_folder(tmp_path / name) as folder:
            for file, data in WRITTEN.items() if name == "a" else reversed(WRITTEN.items()):
                folder.write(file, data)
    manifests = [(tmp_path / name / files.MANIFEST).read_bytes() for name in ("a", "b")]
    assert manifests[0] == manifests[1]


DAMAGES = {
    "content": (lambda folder: (folder / "one").write_bytes(b"2"), "one is damaged"),
    "size": (lambda folder: (folder / "one").write_bytes(b""), "one has 0 bytes, expected 1"),
    "missing": (lambda folder: (folder / "one").unlink(), "one: No such file"),
    "fifo": (
        lambda folder: ((folder / "one").unlink(), os.mkfifo(folder / "one")),
        "one: it is a FIFO",
    ),
    "manifest": (lambda folder: (folder / files.MANIFEST).write_bytes(b"[1"), "manifest.json is"),
    "list": (lambda folder: (folder / files.MANIFEST).write_bytes(b"[1]"), "manifest.json is"),
    "outside": (
        lambda folder: (folder / files.MANIFEST).write_text(
            '{"../file": {"size": 1, "sha256": "0"}}'
        ),
        "outside of its folder",
    ),
    "no manifest": (lambda folder: (folder / files.MANIFEST).unlink(), "manifest.json: No such"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder_is_refused_by_name(tmp_path, damage):
    with files.writing_folder(tmp_path / "folder") as folder:
        folder.write("one", b"1")
    files.verify_folder(tmp_path / "folder")
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "folder")
    with pytest.raises(zoo.WeightsError, match=message):
        files.verify_folder(tmp_path / "folder")


def test_removed_folder_leaves_nothing(tmp_path):
    with files.writing_folder(tmp_path / "folder") as folder:
        folder.write("one", b"1")
    files.remove_folder(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_raises_environment_problem(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(zoo.EnvironmentProblem, match="free some disk space"):
            files.write_bytes(small / "file", bytes(1 << 20))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_canonical_json_sorts_keys_and_refuses_nan():
    assert files.canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
    with pytest.raises(ValueError, match="JSON"):
        files.canonical_json(float("nan"))


# What may write or rename outside of `zoo.files` and `zoo.temporaries`: locks, which have no
# content; a download that is resumed; folders that are filled or set aside, of whole files; what
# never has a name; and programs for tests and pickles, which write into temporary folders.
WRITERS = {
    # The input of the process that tries a converted network which is not to be cached.
    "engine/backends/openvino.py": {"TemporaryDirectory"},
    "files.py": {"open", "os.open", "rename"},
    "temporaries.py": {"os.open", "replace"},
    "cache.py": {"open"},
    "models/download.py": {"open"},
    "models/weight_folder.py": {"open"},
    "models/pickled.py": {"TemporaryFile"},
    "models/unpickle.py": {"open"},
    "data/image_cache.py": {"TemporaryFile"},
    "cli/__init__.py": {"os.open"},
    "cli/output.py": {"open"},
    "engine/run/folder.py": {"rename"},
    "engine/training/checkpoints.py": {"rename"},
    "testing/plugin_package.py": {"rename"},
    "testing/fresh.py": {"TemporaryDirectory"},
    "testing/plugin_suite.py": {"TemporaryDirectory"},
    "testing/runner.py": {"TemporaryDirectory", "TemporaryFile"},
    "testing/subject.py": {"TemporaryDirectory"},
    "testing/worker.py": {"TemporaryDirectory", "os.open"},
}
CALLS = (
    "write_text",
    "write_bytes",
    "rename",
    "replace",
    "tofile",
    "NamedTemporaryFile",
    "mkstemp",
)
TEMPORARY = ("TemporaryFile", "TemporaryDirectory", "mkdtemp")


def written_in(source: str) -> set[str]:
    """Return what of a module may write, rename or create files."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        of_path = isinstance(node.func, ast.Attribute)
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if name == "os.open":
            found.add(name)
        elif last == "open" and any(
            re.fullmatch("[wax]b?|r?w?[+]b?|wb[+]?", str(t)) for t in texts
        ):
            found.add("open")
        elif last in TEMPORARY or (of_path and last in CALLS and len(node.args) == 1):
            found.add(last)
        elif name in ("os.replace", "os.rename", "shutil.move", "shutil.copyfile", "shutil.copy"):
            found.add(name)
    return found


def test_no_other_module_writes_files():
    package = Path(zoo.__file__).parent
    found = {
        path.relative_to(package).as_posix(): written_in(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }
    assert {name: names for name, names in found.items() if names} == WRITERS
    # The search finds what it is for.
    assert written_in("path.write_text('a')\nopen(path, 'w')") == {"write_text", "open"}
    assert written_in("a.rename(b)\nos.replace(a, b)\n'a'.replace('b', 'c')") == {
        "rename",
        "os.replace",
    }
