"""The command line: one small module per command over a static table."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from zoo.cli.group import ReaderGone, Settings, noticing_a_gone_reader, zoo_group
from zoo.errors import ExitCode, ZooError
from zoo.terminal import leading, printable, say

# With these the machine says no, and not zoo that has lost its way among files.
REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


class Terminated(BaseException):
    """SIGTERM arrived."""


def _terminator(settings: Settings) -> Callable[[int, FrameType | None], None]:
    """Return what handles SIGTERM in this process."""
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        # A forked process inherits this handler until it sets its own, but has nothing to say.
        if os.getpid() != owner:
            os._exit(ExitCode.TERMINATED)
        settings.terminated = True
        # Where the whole group is terminated, torch would raise from its handler that workers
        # died, at whatever puts things in order now.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise Terminated

    return terminate


def _set_up_endings(settings: Settings) -> None:
    """Make SIGTERM end a command as Ctrl-C does, and let neither get lost, wherever it arrives."""
    report = sys.unraisablehook
    owner = os.getpid()

    def again(unraisable: Any) -> None:
        # Raised in a `__del__`, or while a process is forked, either is printed and forgotten, so
        # it comes once more.
        match unraisable.exc_value:
            case Terminated():
                number = signal.SIGTERM
            case KeyboardInterrupt():
                number = signal.SIGINT
            case _:
                # What was half made when it arrived can only be a consequence of it.
                if not settings.terminated:
                    report(unraisable)
                return
        if os.getpid() == owner:
            timer = threading.Timer(0.05, os.kill, (owner, number))
            timer.daemon = True
            timer.start()

    sys.unraisablehook = again
    signal.signal(signal.SIGTERM, _terminator(settings))


class _Lines(logging.Formatter):
    """Notices as one line each, like `zoo: warning: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return printable(f"zoo: {level}{' '.join(record.getMessage().split())}")


def _set_up_notices() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("zoo")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if leading() else logging.ERROR)
    logger.propagate = False


def _set_up_streams() -> None:
    """Open what the caller closed, and let no character be one that cannot be printed."""
    # In the order of their numbers, so that each takes its own and no file of ours gets it.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (for good)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_streams() -> None:
    """Write what is left; where that fails drop it, or Python would complain of it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(kind: str, text: str) -> None:
    # Where several processes train, all of them are interrupted, and one says so.
    if kind in ("interrupted", "terminated") and not leading():
        return
    say(f"zoo: {kind}: {' '.join(text.split())}")


def _run(arguments: list[str] | None, settings: Settings) -> int:
    """Run a command, and return its exit code; every ending is one line on stderr."""
    try:
        code = zoo_group.main(arguments, prog_name="zoo", obj=settings, standalone_mode=False)
        with noticing_a_gone_reader():
            sys.stdout.flush()
        return int(code or 0)
    except BaseException as error:
        # Any error after SIGTERM is a consequence of it.
        ending = Terminated() if settings.terminated else error
        return _report(ending, settings)


def _report(error: BaseException, settings: Settings) -> int:
    """Say why a command ended, and return its exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            context = getattr(error, "ctx", None)
            hint = f"; `{context.command_path} --help` shows the options" if context else ""
            _say("error", error.format_message().rstrip(".") + hint)
            return ExitCode.USAGE
        case click.Abort() | KeyboardInterrupt():
            _say("interrupted", "nothing half-written is left")
            return ExitCode.INTERRUPTED
        case Terminated():
            _say("terminated", "nothing half-written is left")
            return ExitCode.TERMINATED
        case ReaderGone():
            return ExitCode.DONE
        case Exception() if not settings.debug:
            return _report_failure(error)
    raise error


def _report_failure(error: Exception) -> int:
    """Say in one line what failed, and return its exit code."""
    match error:
        case ZooError():
            if not getattr(error, "told", False) or leading():
                _say("error", str(error))
            return error.exit_code
        case MemoryError():
            _say("error", "out of memory")
            return ExitCode.ENVIRONMENT
        case OSError() if error.errno in REFUSALS:
            where = f": {error.filename}" if error.filename else ""
            _say("error", f"the system refuses: {error.strerror}{where}")
            return ExitCode.ENVIRONMENT
    said = f"{type(error).__name__}: {error}"
    _say("bug", f"{said}; please report it, with what --debug prints")
    return ExitCode.BUG


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line, and exit with a code of `zoo.ExitCode`."""
    settings = Settings()
    _set_up_streams()
    _set_up_notices()
    _set_up_endings(settings)
    try:
        code = int(_run(arguments, settings))
    except Terminated:
        # It arrived while another ending was being told.
        code = int(ExitCode.TERMINATED)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_go_of_streams()
    distributed = sys.modules.get("zoo.engine.runtime.distributed")
    if distributed is not None and distributed.ended_badly():
        # Threads of torch's that wait for processes that have gone would abort this one.
        os._exit(code)
    sys.exit(code)
