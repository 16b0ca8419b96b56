"""Run the checks of backbones, tasks and plugins in worker processes; torch is not imported here.

A crash of a worker is the failure of the check that was running; the other checks go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from zoo import hookspecs
from zoo.errors import EnvironmentProblem
from zoo.testing.findings import EXCEPTED, FAILED, Finding

BACKBONE, TASK, PLUGIN = "backbone", "task", "plugin"
PREPARE = "prepare"
OBSERVING = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith("zoo_") and not name.startswith("zoo_register_")
)
PREPARED = "the checks can be started"


class Job(NamedTuple):
    """What is checked.

    Args:
        kind: `backbone`, `task`, `weights` or `plugin`.
        name: id or name.
        exceptions: of a backbone.
    """

    kind: str
    name: str
    exceptions: Mapping[str, str] = {}


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker process.

    Args:
        without: plugins that it does not load.
        file: registry file that it reads.
        plugins: absolute paths of python files that it loads as plugins.
        path: its `sys.path`.
        preload: libraries to import once for all jobs.
    """

    without: Sequence[str]
    file: str | None
    plugins: list[str]
    path: Sequence[str]
    preload: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        without: Sequence[str] = (),
        file: Path | None = None,
        plugins: Sequence[Path] = (),
        preload: Sequence[str] = (),
    ) -> WorkerSettings:
        """Return the settings for the plugins and the registry file of a command."""
        paths = [str(path.absolute()) for path in plugins]
        registry_file = str(file.absolute()) if file else None
        return cls(list(without), registry_file, paths, list(sys.path), list(preload))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        """Return the settings that a worker gets as its argument."""
        return cls(**json.loads(text))


def _describe_exit(code: int | None) -> str:
    """Return how a process ended, as text."""
    if code is None or code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as where memory runs out" if name == "SIGKILL" else ", a crash in native code"
    return f"the process was ended by {name}{hint}"


class Worker:
    """A worker process, started for the first job, and again where it ended.

    Args:
        settings: of the process.
        threads: of torch; None for its default.
    """

    def __init__(self, settings: WorkerSettings, threads: int | None = None) -> None:
        self._settings = settings
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="zoo-testing-")
        self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the process

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {**os.environ, "TMPDIR": self._folder.name}
            if self._threads is not None:
                environment.setdefault("OMP_NUM_THREADS", str(self._threads))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "zoo.testing.worker", json.dumps(asdict(self._settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # a group, ended with all that it started
            )
            if self._closed:
                self.close()
        return self._process

    def _messages(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request, and yield the messages of the worker; the last has the key `exit`."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            yield message
            if "exit" in message:
                return
        code = process.wait()
        self._process = None
        yield {"exit": code or 1}

    def run(self, job: Job) -> list[Finding]:
        """Run the checks of a job, and return their findings.

        Raises:
            EnvironmentProblem: the system fails, not what is checked.
        """
        findings: list[Finding] = []
        causes: dict[str, str] = {}
        while True:
            done = [finding.check for finding in findings]
            request = {"kind": job.kind, "name": job.name, "done": done, "causes": causes}
            started, start = (PREPARE, PREPARED), self._stderr.seek(0, os.SEEK_END)
            code, error = None, None
            for message in self._messages(request):
                if "started" in message:
                    started = message["started"], message["requirement"]
                elif "finding" in message:
                    findings.append(Finding(**message["finding"]))
                    causes, started = message["causes"], (PREPARE, PREPARED)
                elif "problem" in message:
                    raise EnvironmentProblem(*message["problem"])
                elif "error" in message:
                    error = Finding(job.name, PREPARE, PREPARED, FAILED, message["error"], 0.0)
                else:
                    code = message["exit"]
            if not code:
                return [*findings, error] if error else findings
            crash = self._crash(job, started, code, start)
            findings.append(crash)
            if self._closed or crash.check == PREPARE:
                return findings
            causes[crash.check] = crash.check

    def _crash(self, job: Job, check: tuple[str, str], code: int, start: int) -> Finding:
        """Return the finding of a check that ended its process."""
        if check[0] in job.exceptions:
            return Finding(job.name, *check, EXCEPTED, job.exceptions[check[0]], 0.0)
        self._stderr.seek(start)
        trace = self._stderr.read().decode("utf-8", "replace")
        return Finding(job.name, *check, FAILED, _describe_exit(code), 0.0, trace or None)

    def close(self) -> None:
        """End the process, and all that it started."""
        self._closed = True
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._folder.cleanup()


def run_jobs(
    jobs: Sequence[Job], settings: WorkerSettings, count: int = 1
) -> Iterator[tuple[Job, list[Finding]]]:
    """Run jobs in worker processes, and yield each with its findings, in order.

    Args:
        jobs: to run.
        settings: of the workers.
        count: number of workers.

    Raises:
        EnvironmentProblem: the system fails, not what is checked.
    """
    count = min(count, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // count) if count > 1 else None
    workers = [Worker(settings, threads) for _ in range(count)]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(job: Job) -> list[Finding]:
        worker = idle.get()
        try:
            return worker.run(job)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(count)
    try:
        yield from zip(jobs, pool.map(run, jobs), strict=True)
    finally:
        for worker in workers:
            worker.close()
        pool.shutdown(cancel_futures=True)
