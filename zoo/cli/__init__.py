"""The command line: one small module per command, named by a static table."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import takewhile
from types import FrameType
from typing import Any, NamedTuple

import click

from zoo import errors
from zoo.cli.group import OutputClosed, Settings, detecting_closed_output, zoo_group
from zoo.cli.output import naming_stdout, reserved_stdout, stdout
from zoo.errors import (
    ENVIRONMENT_ERRNOS,
    ExitCode,
    Interruption,
    UsageError,
    ZooError,
    join_lines,
    one_line,
)
from zoo.terminal import is_rank_zero, print_notice, printable


class Terminated(Interruption):
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


class _Failure(NamedTuple):
    """Why a command ended.

    Args:
        label: `error`, `bug`, `interrupted` or `terminated`.
        kind: name of the error's class.
        message: what is wrong and where.
        exit_code: of the process.
        hint: what to do next.
        notes: of the error, such as what a run folder keeps.
    """

    label: str
    kind: str
    message: str
    exit_code: ExitCode
    hint: str | None = None
    notes: Sequence[str] = ()

    def to_text(self) -> str:
        """Return it in one line for people."""
        parts = [self.message, *([self.hint] if self.hint else ()), *self.notes]
        return f"zoo: {self.label}: {'; '.join(parts)}"

    def to_json(self) -> str:
        """Return it as a JSON object in one line."""
        import json  # here, because help does not need it

        message = "; ".join([self.message, *self.notes])
        known = {"kind": self.kind, "message": message, "hint": self.hint}
        return json.dumps({**known, "exit_code": int(self.exit_code)})


def _prints_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; it may not be valid."""
    options = [*takewhile(lambda argument: argument != "--", arguments)]
    return "--json" in options or "--json-lines" in options


def _run(arguments: list[str] | None, settings: Settings) -> int:
    """Run a command and return its exit code; report a failure in one line on stderr."""
    settings.as_json = _prints_json(sys.argv[1:] if arguments is None else arguments)
    before, errors.command_line = errors.command_line, True
    try:
        with reserved_stdout() if settings.as_json else nullcontext():
            code = zoo_group.main(arguments, prog_name="zoo", obj=settings, standalone_mode=False)
            with detecting_closed_output(), naming_stdout():
                stdout().flush()
        return int(code or 0)
    except BaseException as error:
        # Any error after SIGTERM is a consequence of it.
        if settings.terminated and not isinstance(error, Terminated):
            terminated = Terminated()
            terminated.__cause__ = error
            return _report(terminated, settings)
        return _report(error, settings)
    finally:
        errors.command_line = before


def _report(error: BaseException, settings: Settings) -> int:
    """Report why a command ended, and return its exit code."""
    if isinstance(error, click.Abort) and isinstance(error.__cause__, EOFError):
        error = error.__cause__  # of a file that ends too early; no command prompts for input
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case OutputClosed():
            return ExitCode.DONE
    failure = _describe(error, settings)
    if failure is None:
        raise error
    # Under torchrun all processes are interrupted; the first one reports it.
    elsewhere = failure.label in ("interrupted", "terminated") or getattr(error, "reported", False)
    if is_rank_zero() or not elsewhere:
        print_notice(failure.to_json() if settings.as_json else failure.to_text())
    return failure.exit_code


def _describe(error: BaseException, settings: Settings) -> _Failure | None:
    """Return why a command ended; None for an exception to raise."""
    match error:
        case click.Abort() | KeyboardInterrupt():
            message = _interruption(error, settings)
            return _Failure("interrupted", "KeyboardInterrupt", message, ExitCode.INTERRUPTED)
        case Terminated():
            message = _interruption(error, settings)
            return _Failure("terminated", "Terminated", message, ExitCode.TERMINATED)
        case click.ClickException():
            context = getattr(error, "ctx", None)
            hint = f"see `{context.command_path} --help`" if context else None
            message = join_lines(error.format_message()).rstrip(".")
            return _Failure("error", UsageError.__name__, message, ExitCode.USAGE, hint)
        case Exception() if not settings.debug:
            return _describe_exception(error)
    return None


def _interruption(error: BaseException, settings: Settings) -> str:
    """Return which plugin an interrupt ended, if any, and what remains of the command."""
    from zoo.registry.plugin_code import InterruptedIn  # here, because help does not need it

    notes = _notes(error)
    remains = [note for note in notes if not isinstance(note, InterruptedIn)]
    return "; ".join([*notes, *(() if remains else [settings.interruption])])


def _notes(error: BaseException | None) -> Sequence[str]:
    """Return the notes of an interrupt, or of the nearest of its causes that has any."""
    while error is not None:
        notes: Sequence[str] = getattr(error, "__notes__", ())
        if notes:
            return notes
        error = error.__cause__ or error.__context__
    return ()


def _describe_exception(error: Exception) -> _Failure:
    kind = type(error).__name__
    match error:
        case ZooError():
            # The public class: subclasses elsewhere may be renamed.
            public = next(each for each in type(error).__mro__ if each.__module__ == "zoo.errors")
            notes = getattr(error, "__notes__", ())
            code = error.exit_code
            return _Failure("error", public.__name__, error.message, code, error.hint, notes)
        case MemoryError():
            return _Failure("error", kind, "out of memory", ExitCode.ENVIRONMENT)
        case ImportError() if ".so" in str(error):  # of the system's loader
            hint = "free some memory, or raise its limit; else `zoo doctor` checks the installation"
            message = f"a library cannot be loaded: {one_line(error)}"
            return _Failure("error", kind, message, ExitCode.ENVIRONMENT, hint)
        case OSError() if error.errno in ENVIRONMENT_ERRNOS:
            path = f": {error.filename}" if error.filename else ""
            return _Failure("error", kind, f"{error.strerror}{path}", ExitCode.ENVIRONMENT)
    hint = "please report it with the traceback that --debug prints"
    return _Failure("bug", kind, one_line(error), ExitCode.BUG, hint)


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
    if settings.as_json:
        # What native code has buffered is written at exit.
        with suppress(OSError):
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    distributed = sys.modules.get("zoo.engine.runtime.distributed")
    if distributed is not None and distributed.process_group_broken():
        # torch's threads that wait for the other processes would abort this one at exit.
        os._exit(code)
    sys.exit(code)
