"""Run the conformance suite over every backbone of the registry; interruptible and resumable.

`uv run python -m tools.census ROWS`, in the root of the repository, checks the description and the
structure of every backbone, and the values of the smallest of each group of similar ones and of all
up to a number of parameters. Each backbone's row is appended to ROWS when it is done, so the same
command resumes; with `--engine`, the smallest of each group is converted by OpenVINO and compared
with torch instead. Rows of other versions of the libraries, and failed rows, are run again.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click

from zoo.files import library_versions
from zoo.registry.registry import load_registry
from zoo.spec import Backbone
from zoo.testing.findings import FAILED

LIBRARIES = ("torch", "torchvision", "timm")
LIGHT, HEAVY, ENGINE, EXPORT = "structure", "values", "engine", "export"
JOBS_PER_WORKER = 40
TIMEOUT = 1800.0
LARGE = 150_000_000
PROCESS = "process"

Row = dict[str, Any]


def read_rows(path: Path) -> dict[tuple[str, str], Row]:
    """Return the last row of each backbone and kind of check, of the installed versions.

    A line truncated by an interruption is skipped.
    """
    rows: dict[tuple[str, str], Row] = {}
    versions = library_versions(*LIBRARIES)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            if row["versions"] == versions:
                rows[row["id"], row["kind"]] = row
    return rows


def has_failed(row: Row) -> bool:
    """Return whether a check failed."""
    return any(status == FAILED for status, _ in row["findings"].values())


def check_backbone(identity: str, kind: str, fresh: bool) -> Row:
    """Run half of the suite on a backbone.

    Args:
        identity: its id.
        kind: `structure`, which includes the description, `values`, `engine` or `export`.
        fresh: load its model file in a fresh process too.
    """
    from zoo.testing import suite
    from zoo.testing.fresh import in_fresh_process
    from zoo.testing.subject import Subject

    began = time.perf_counter()
    registry = load_registry()
    if kind in (ENGINE, EXPORT):
        from tools.engine_census import check_engine
        from tools.export_census import check_export

        check = check_engine if kind == ENGINE else check_export
        about: Row = {"id": identity, "kind": kind, "ran": None}
        about |= {"versions": library_versions(*LIBRARIES), **check(identity, registry)}
        return {**about, "seconds": round(time.perf_counter() - began, 2)}
    subject = Subject(registry.get(identity), registry, in_fresh_process() if fresh else None)
    kinds = (suite.VALUES,) if kind == HEAVY else (suite.DESCRIPTION, suite.STRUCTURE)
    findings = list(suite.run_checks(subject, suite.select_checks(kinds)))
    row: Row = {
        "id": identity,
        "kind": kind,
        "ran": subject.ran.get(kind),
        "versions": library_versions(*LIBRARIES),
        "findings": {finding.check: [finding.status, finding.detail] for finding in findings},
    }
    if kind == HEAVY:
        row["fresh"] = fresh
    elif not has_failed(row):  # a backbone that fails to build has neither
        row["params"] = sum(parameter.numel() for parameter in subject.published.parameters())
        row["group"] = subject.group
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def work() -> None:
    """Read jobs from stdin, and write a row for each to stdout."""
    import torch

    torch.set_num_threads(1)
    # Output printed by a network must not mix with the rows.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            job = json.loads(line)
            results.write(json.dumps(check_backbone(**job)) + "\n")
            results.flush()


class Worker:
    """A process that checks backbones one after another, restarted when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, job: Row) -> Row:
        """Check a backbone; a process that dies is reported as a finding."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        result = ""
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            result = process.stdout.readline()
        timer.cancel()
        self._done += 1
        if not result or self._done % JOBS_PER_WORKER == 0:
            self.stop()
        if result:
            return json.loads(result)  # type: ignore[no-any-return]
        message = f"the process exited with {process.returncode}"
        return {
            "id": job["identity"],
            "kind": job["kind"],
            "ran": None,
            "versions": library_versions(*LIBRARIES),
            "findings": {PROCESS: [FAILED, message]},
            "seconds": 0.0,
        }

    def stop(self) -> None:
        """Close the process, and wait for it."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def run_jobs(jobs: Iterable[Row], path: Path, workers: int, until: float) -> int:
    """Check backbones in several processes, and append each row when it is done.

    Args:
        jobs: arguments of `check_backbone`.
        path: of the rows.
        workers: number of processes.
        until: time of `time.monotonic` after which no job is started.

    Returns:
        Number of finished jobs.
    """
    pending: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)
    total, done, lock = pending.qsize(), 0, threading.Lock()

    def serve() -> None:
        nonlocal done
        worker = Worker()
        while time.monotonic() < until:
            try:
                job = pending.get_nowait()
            except queue.Empty:
                break
            row = worker.run(job)
            with lock, path.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row) + "\n")
                done += 1
                state = "FAILED" if has_failed(row) else "ok"
                click.echo(
                    f"{done}/{total} {row['kind']} {row['id']} {state} {row['seconds']:.1f} s",
                    err=True,
                )
        worker.stop()

    threads = [threading.Thread(target=serve) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def light_jobs(backbones: Sequence[Backbone], rows: dict[tuple[str, str], Row]) -> list[Row]:
    """Return the remaining jobs for descriptions and structures, in the order of the registry."""
    return [
        {"identity": backbone.id, "kind": LIGHT, "fresh": False}
        for backbone in backbones
        if (row := rows.get((backbone.id, LIGHT))) is None or has_failed(row)
    ]


def heavy_jobs(
    backbones: Sequence[Backbone], rows: dict[tuple[str, str], Row], up_to: int
) -> list[Row]:
    """Return the remaining jobs for values: the smallest of each group first, then by size."""
    names = {backbone.id for backbone in backbones if not backbone.refuse}
    light = (row for (name, kind), row in rows.items() if kind == LIGHT and name in names)
    known = sorted((row for row in light if "group" in row), key=lambda row: row["params"])
    first: dict[str, str] = {}
    for row in known:
        first.setdefault(row["group"], row["id"])
    smallest = set(first.values())
    selected = [row for row in known if row["id"] in smallest]
    selected += [row for row in known if row["id"] not in smallest and row["params"] <= up_to]
    return [
        {"identity": row["id"], "kind": HEAVY, "fresh": row["id"] in smallest}
        for row in selected
        if (earlier := rows.get((row["id"], HEAVY))) is None or has_failed(earlier)
    ]


def engine_jobs(
    backbones: Sequence[Backbone], rows: dict[tuple[str, str], Row], kind: str = ENGINE
) -> list[Row]:
    """Return the remaining jobs of a kind: the smallest of each group, or all without groups."""
    light = [rows[b.id, LIGHT] for b in backbones if not b.refuse and (b.id, LIGHT) in rows]
    known = sorted((row for row in light if "group" in row), key=lambda row: row["params"])
    first: dict[str, str] = {}
    for row in known:
        first.setdefault(row["group"], row["id"])
    names = list(first.values()) or [
        b.id for b in sorted(backbones, key=lambda b: b.params or 0) if not b.refuse
    ]
    return [
        {"identity": name, "kind": kind, "fresh": False}
        for name in names
        if (earlier := rows.get((name, kind))) is None or has_failed(earlier)
    ]


@click.command(help=__doc__)
@click.argument("path", metavar="ROWS", type=click.Path(path_type=Path), required=False)
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--up-to", default=15_000_000, help="Parameters up to which all values are checked.")
@click.option("--workers", default=os.cpu_count() or 1, help="Single-threaded processes.")
@click.option("--minutes", default=1e6, help="Start no job after this time.")
@click.option("--engine", is_flag=True, help="Check the engine of frozen features instead.")
@click.option("--export", is_flag=True, help="Check the export to ONNX instead.")
@click.option("--worker", is_flag=True, hidden=True)
def main(
    path: Path | None,
    patterns: tuple[str, ...],
    up_to: int,
    workers: int,
    minutes: float,
    engine: bool,
    export: bool,
    worker: bool,
) -> None:
    """Run the census."""
    if worker or path is None:
        work()
        return
    until = time.monotonic() + 60 * minutes
    backbones = load_registry().find(patterns)
    if engine or export:
        kind = ENGINE if engine else EXPORT
        run_jobs(engine_jobs(backbones, read_rows(path), kind), path, workers, until)
        return
    run_jobs(light_jobs(backbones, read_rows(path)), path, workers, until)
    jobs = heavy_jobs(backbones, read_rows(path), up_to)
    large = {b.id for b in backbones if (b.params or 0) > LARGE}
    run_jobs([job for job in jobs if job["identity"] not in large], path, workers, until)
    # Several of the largest at once may not fit into memory.
    run_jobs([job for job in jobs if job["identity"] in large], path, 1, until)
    names = {backbone.id for backbone in backbones}
    rows = read_rows(path)
    failed = [row for (name, _), row in rows.items() if name in names and has_failed(row)]
    for row in failed:
        for check, (status, detail) in row["findings"].items():
            if status == FAILED:
                click.echo(f"{row['id']} {check}: {detail}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
