"""The census: resuming, crashing backbones, and the report of its rows."""

import json
import os
import subprocess
import sys

import pytest

from tools.census import read_rows
from tools.conformance_report import SUITE, merge, render, verdict

NAMES = ("faulty/sound", "faulty/unused", "faulty/deadly", "faulty/encoder", "faulty/excepted")


def census(path, *arguments):
    command = [sys.executable, "-m", "tools.census", str(path), *NAMES, "--workers", "1"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_census_resumes_after_truncated_row(faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "faulty")
    path = tmp_path / "rows.jsonl"
    code, out, err = census(path)
    assert code == 1
    assert "Traceback" not in err, err
    assert "faulty/deadly process: the process exited with 3" in out
    assert "faulty/unused everything_has_a_gradient: 2 of 14 parameters get no gradient" in out
    assert "1/5 structure faulty/sound ok" in err
    whole = read_rows(path)
    # Only the first network of a group is loaded in a fresh process.
    assert {(name, kind) for name, kind in whole if kind == "values"} == {
        (name, "values") for name in NAMES if name not in ("faulty/deadly", "faulty/encoder")
    }
    assert sorted(row["fresh"] for row in whole.values() if "fresh" in row) == [False, False, True]

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:50])  # killed while it wrote
    _, _, err = census(path)
    checked = [line.split()[1:3] for line in err.splitlines()]
    last = json.loads(lines[-1])
    assert ["structure", "faulty/deadly"] in checked
    assert [last["kind"], last["id"]] in checked
    assert ["structure", "faulty/sound"] not in checked

    rows = {row["id"]: row for row in merge(read_rows(path)) if row["id"] in NAMES}
    assert {name: verdict(row) for name, row in rows.items()} == {
        "faulty/sound": "conforms",
        "faulty/unused": "failed",
        "faulty/deadly": "failed",
        "faulty/encoder": "refused",
        "faulty/excepted": "conforms",
    }
    assert all(len(row["checks"]) == len(SUITE) for row in rows.values())
    page = render(list(rows.values()), {"torch": "2"})
    assert "3 of 5 backbones pass every check" in page
    assert "| faulty/excepted | " in page
    assert "`everything_has_a_gradient`: one layer is a spare |" in page


def test_read_rows_ignores_other_versions(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {"id": "a/b", "kind": "structure", "versions": {"torch": "0.1"}, "findings": {}}
    path.write_text(json.dumps(row) + "\n")
    assert read_rows(path) == {}
    assert read_rows(tmp_path / "none") == {}
