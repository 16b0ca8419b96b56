"""Run checks in a process that imports torch once, and forks for every job.

`python -m zoo.testing.worker SETTINGS` reads jobs from stdin and writes messages to stdout, each a
line of JSON; `zoo.testing.runner` is the other end. A job runs in a forked process, so a crash in
native code ends that job only, and its model file is loaded in a second one, forked before it.
Neither shares modules of the plugin with another job. Where fork is not safe, jobs run in this
process, and a crash ends it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.errors import EnvironmentProblem, ZooError, one_line
from zoo.testing.fresh import in_fresh_process, through_files, write_logits
from zoo.testing.runner import BACKBONE, TASK, WorkerSettings
from zoo.testing.weight_checks import WEIGHTS, find_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from zoo.registry.registry import Registry
    from zoo.testing.findings import Check, Finding

    Send = Callable[[dict[str, Any]], None]
    Fresh = Callable[[Path, Tensor], Tensor]
    Runs = list[tuple[Check, Callable[[], Finding]]]

# macOS forbids its frameworks after fork.
FORKS = sys.platform == "linux"
PRELOADED = ("zoo.testing.suite", "zoo.testing.task_suite", "zoo.inference.loading")


def _registry(settings: WorkerSettings) -> Registry:
    from zoo.registry.registry import load_registry

    return load_registry(settings.without, settings.file, settings.plugins)


def _checks_of(
    job: dict[str, Any], registry: Registry, fresh: Fresh
) -> tuple[dict[str, str], Runs]:
    """Return the causes of failures, which the checks update, and the checks of a job."""
    kind, name = job["kind"], job["name"]
    if kind == BACKBONE:
        from zoo.testing.subject import Subject
        from zoo.testing.suite import SUITE, run_check, select_checks

        subject = Subject(registry.get(name), registry, fresh)
        select_checks(names=list(subject.backbone.exceptions))
        return subject.causes, [(check, partial(run_check, subject, check)) for check in SUITE]
    if kind == TASK:
        from zoo.testing.task_suite import TASK_SUITE, run_task_check, task_subject

        task = task_subject(name, registry)
        return task.causes, [(check, partial(run_task_check, task, check)) for check in TASK_SUITE]
    if kind == WEIGHTS:
        weights = find_weights(name, registry)
        return weights.causes, [(weights.check, weights.run)]
    from zoo.testing.plugin_suite import PLUGIN_SUITE, PluginSubject
    from zoo.testing.suite import evaluate_check

    plugin = PluginSubject(name, registry)
    return plugin.causes, [
        (check, partial(evaluate_check, name, check, plugin)) for check in PLUGIN_SUITE
    ]


def run_job(job: dict[str, Any], settings: WorkerSettings, send: Send, fresh: Fresh) -> None:
    """Run the remaining checks of a job, and send each when it starts and when it ends."""
    try:
        causes, runs = _checks_of(job, _registry(settings), fresh)
        causes.update(job["causes"])
        for check, run in runs:
            if check.name not in job["done"]:
                send({"started": check.name, "requirement": check.requirement})
                finding = run()
                send({"finding": asdict(finding), "causes": causes})
    except EnvironmentProblem as error:
        send({"problem": [error.message, error.hint]})
    except MemoryError as error:
        send({"problem": [str(error) or "out of memory", None]})
    except ZooError as error:
        send({"error": str(error)})


def _fork(run: Callable[[], None]) -> int:
    """Run a function in a forked process, and return the id of that."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve_fresh(connection: socket.socket, settings: WorkerSettings) -> None:
    """Load the model files that the other end of a connection requests, until it is closed."""
    with connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            problem = None
            try:
                write_logits(json.loads(line), settings.without, settings.file, settings.plugins)
            except Exception as error:
                problem = str(error) if isinstance(error, ZooError) else one_line(error)
            lines.write(json.dumps(problem) + "\n")
            lines.flush()


def _fresh_through(connection: socket.socket) -> Fresh:
    lines = connection.makefile("rw", encoding="utf-8")

    def run(paths: list[str]) -> str | None:
        with suppress(OSError, ValueError):
            lines.write(json.dumps(paths) + "\n")
            lines.flush()
            answer: str | None = json.loads(lines.readline())
            return answer
        return "it crashed"

    return through_files(run)


def _run_forked(job: dict[str, Any], settings: WorkerSettings, send: Send) -> int:
    """Run a job in a forked process, and return its exit code, negative for a signal."""
    ours, theirs = socket.socketpair()
    # A process that crashes leaves its temporary files.
    with tempfile.TemporaryDirectory(prefix="zoo-testing-") as folder, ours, theirs:

        def serve() -> None:
            ours.close()
            _serve_fresh(theirs, settings)

        def check() -> None:
            theirs.close()
            tempfile.tempdir = folder
            faulthandler.enable()
            run_job(job, settings, send, _fresh_through(ours))

        server, checker = _fork(serve), _fork(check)
        code = os.waitstatus_to_exitcode(os.waitpid(checker, 0)[1])
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        return code


def main(settings: WorkerSettings) -> None:
    """Run the jobs of stdin, until it is closed."""
    sys.path[:] = settings.path
    # What a network prints must not mix with the messages, nor what it reads with the jobs.
    jobs, messages = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in (*PRELOADED, *settings.preload):
        with suppress(ImportError):
            import_module(name)
    with os.fdopen(jobs, encoding="utf-8") as lines, os.fdopen(messages, "w") as results:

        def send(message: dict[str, Any]) -> None:
            results.write(json.dumps(message) + "\n")
            results.flush()

        for line in lines:
            job, code = json.loads(line), 0
            if FORKS:
                code = _run_forked(job, settings, send)
            else:
                faulthandler.enable()
                fresh = in_fresh_process(settings.without, settings.file, settings.plugins)
                run_job(job, settings, send, fresh)
            send({"exit": code})


if __name__ == "__main__":
    main(WorkerSettings.from_json(sys.argv[1]))
