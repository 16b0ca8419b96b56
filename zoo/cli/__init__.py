"""The command line: one small module per command, named by a static table."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import click

from zoo.cli.group import OutputClosed, Settings, detecting_closed_output, zoo_group
from zoo.errors import ExitCode, ZooError
from zoo.terminal import is_rank_zero, print_notice, printable

# errno values that mean an environment problem rather than a bug.
ENVIRONMENT_ERRNOS = {
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
    """SIGTERM was received."""


def _sigterm_handler(settings: Settings) -> Callable[[int, FrameType | None], None]:
    """Return the SIGTERM handler of this process."""
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        # A forked process inherits this handler until it installs its own; it must not report.
        if os.getpid() != owner:
            os._exit(ExitCode.TERMINATED)
        settings.terminated = True
        # When the whole process group is terminated, torch's SIGCHLD handler would raise for the
        # dead workers in the middle of the cleanup.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise Terminated

    return terminate


def _install_signal_handlers(settings: Settings) -> None:
    """Make SIGTERM end a command like Ctrl-C, and resend either if Python drops the exception."""
    default_hook = sys.unraisablehook
    owner = os.getpid()

    def resend(unraisable: Any) -> None:
        # Raised in a `__del__` or in a fork handler, either is printed and dropped by Python.
        match unraisable.exc_value:
            case Terminated():
                number = signal.SIGTERM
            case KeyboardInterrupt():
                number = signal.SIGINT
            case _:
                # After SIGTERM, a failing finalizer is a consequence of it.
                if not settings.terminated:
                    default_hook(unraisable)
                return
        if os.getpid() == owner:
            timer = threading.Timer(0.05, os.kill, (owner, number))
            timer.daemon = True
            timer.start()

    sys.unraisablehook = resend
    signal.signal(signal.SIGTERM, _sigterm_handler(settings))


class _LineFormatter(logging.Formatter):
    """Format a log record as one line such as `zoo: warning: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return printable(f"zoo: {level}{' '.join(record.getMessage().split())}")


def _configure_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logger = logging.getLogger("zoo")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    logger.propagate = False


def _configure_streams() -> None:
    """Reopen closed standard streams on devnull, and escape characters they cannot encode."""
    # In the order of their descriptors: each gets its own number, and no other file does.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            from pathlib import Path  # here, because help does not need it

            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (never closed)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flush_streams() -> None:
    """Flush the output streams; discard what cannot be written, which Python would report."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(kind: str, text: str) -> None:
    # Under torchrun all processes are interrupted; the first one reports it.
    if kind in ("interrupted", "terminated") and not is_rank_zero():
        return
    print_notice(f"zoo: {kind}: {' '.join(text.split())}")


def _run(arguments: list[str] | None, settings: Settings) -> int:
    """Run a command and return its exit code; report a failure in one line on stderr."""
    try:
        code = zoo_group.main(arguments, prog_name="zoo", obj=settings, standalone_mode=False)
        with detecting_closed_output():
            sys.stdout.flush()
        return int(code or 0)
    except BaseException as error:
        # Any error after SIGTERM is a consequence of it.
        if settings.terminated and not isinstance(error, Terminated):
            terminated = Terminated()
            terminated.__cause__ = error
            return _report(terminated, settings)
        return _report(error, settings)


def _report(error: BaseException, settings: Settings) -> int:
    """Report why a command ended, and return its exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            context = getattr(error, "ctx", None)
            hint = f"; see `{context.command_path} --help`" if context else ""
            _print_error("error", error.format_message().rstrip(".") + hint)
            return ExitCode.USAGE
        case click.Abort() | KeyboardInterrupt():
            _print_error("interrupted", _notes(error) or settings.interruption)
            return ExitCode.INTERRUPTED
        case Terminated():
            _print_error("terminated", _notes(error) or settings.interruption)
            return ExitCode.TERMINATED
        case OutputClosed():
            return ExitCode.DONE
        case Exception() if not settings.debug:
            return _report_failure(error)
    raise error


def _notes(error: BaseException | None) -> str:
    """Return the notes of an interrupt, or of the nearest of its causes that has any."""
    while error is not None:
        if notes := getattr(error, "__notes__", ()):
            return "; ".join(notes)
        error = error.__cause__ or error.__context__
    return ""


def _report_failure(error: Exception) -> int:
    """Report an exception in one line, and return its exit code."""
    match error:
        case ZooError():
            if not getattr(error, "reported", False) or is_rank_zero():
                _print_error("error", "; ".join([str(error), *getattr(error, "__notes__", ())]))
            return error.exit_code
        case MemoryError():
            _print_error("error", "out of memory")
            return ExitCode.ENVIRONMENT
        case OSError() if error.errno in ENVIRONMENT_ERRNOS:
            path = f": {error.filename}" if error.filename else ""
            _print_error("error", f"{error.strerror}{path}")
            return ExitCode.ENVIRONMENT
    message = f"{type(error).__name__}: {error}"
    _print_error("bug", f"{message}; please report it with the traceback that --debug prints")
    return ExitCode.BUG


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line, and exit with a code of `zoo.ExitCode`."""
    settings = Settings()
    _configure_streams()
    _configure_logging()
    _install_signal_handlers(settings)
    try:
        code = int(_run(arguments, settings))
    except Terminated:
        # Received while another error was being reported.
        code = int(ExitCode.TERMINATED)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _flush_streams()
    distributed = sys.modules.get("zoo.engine.runtime.distributed")
    if distributed is not None and distributed.process_group_broken():
        # torch's threads that wait for the other processes would abort this one at exit.
        os._exit(code)
    sys.exit(code)
