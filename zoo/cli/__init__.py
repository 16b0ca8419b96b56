"""The command line: one small module per command over a static table."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from zoo.cli.group import Settings, zoo_group
from zoo.errors import ExitCode, ZooError


class Terminated(BaseException):
    """SIGTERM arrived."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


class _Lines(logging.Formatter):
    """Notices as one line each, like `zoo: warning: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"zoo: {level}{' '.join(record.getMessage().split())}"


def _set_up_notices() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("zoo")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _say(kind: str, text: str) -> None:
    click.echo(f"zoo: {kind}: {' '.join(text.split())}", err=True)


def _run(arguments: list[str] | None, settings: Settings) -> int:
    """Run a command, and return its exit code; every ending is one line on stderr."""
    try:
        code = zoo_group.main(arguments, prog_name="zoo", obj=settings, standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; `{context.command_path} --help` shows the options" if context else ""
        _say("error", error.format_message().rstrip(".") + hint)
        return ExitCode.USAGE
    except click.Abort:
        _say("interrupted", "nothing half-written is left")
        return ExitCode.INTERRUPTED
    except Terminated:
        _say("terminated", "nothing half-written is left")
        return ExitCode.TERMINATED
    except ZooError as error:
        if settings.debug:
            raise
        _say("error", str(error))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except MemoryError:
        _say("error", "out of memory")
        return ExitCode.ENVIRONMENT
    except Exception as error:
        if settings.debug:
            raise
        said = f"{type(error).__name__}: {error}"
        _say("bug", f"{said}; please report it, with what --debug prints")
        return ExitCode.BUG


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line, and exit with a code of `zoo.ExitCode`."""
    _set_up_notices()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(int(_run(arguments, Settings())))
