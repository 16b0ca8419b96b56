"""Static tables of commands, and the group that reads one.

Help and completion need names and summaries only, so a command's module is imported when the
command runs.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zoo import __version__
from zoo.errors import EnvironmentProblem, ExitCode, did_you_mean

if TYPE_CHECKING:
    from zoo.registry.registry import Registry


@dataclass
class Settings:
    """What holds for every command.

    Args:
        without: plugins switched off by `--no-plugin`.
        plugin_files: what `--plugin` names.
        registry_file: what `--registry` names.
        debug: let errors end in their traceback.
        terminated: whether SIGTERM has arrived.
    """

    without: list[str] = field(default_factory=list)
    plugin_files: list[Path] = field(default_factory=list)
    registry_file: Path | None = None
    debug: bool = False
    terminated: bool = False

    def registry(self) -> Registry:
        """Return the registry with all that the options say of it."""
        from zoo.registry.registry import load_registry

        return load_registry(self.without, self.registry_file, self.plugin_files)

    def naming_backbones(self) -> str:
        """Return the options without which another command would not know the same backbones."""
        from shlex import quote

        named = [f" --plugin {quote(str(file))}" for file in self.plugin_files]
        if self.registry_file is not None:
            named.append(f" --registry {quote(str(self.registry_file))}")
        return "".join(named)


class Entry(NamedTuple):
    """A command: its name, the module that holds it, and what it does in a line."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Entry("list", "zoo.cli.list", "List backbones, filtered and sorted."),
    Entry("show", "zoo.cli.show", "Show all that is known about a backbone."),
    Entry("finetune", "zoo.cli.finetune", "Fine-tune a backbone on images."),
    Entry("evaluate", "zoo.cli.evaluate", "Measure a model file on images."),
    Entry("predict", "zoo.cli.predict", "Classify images with a model file or a backbone."),
    Entry("embed", "zoo.cli.embed", "Write the features of images."),
    Entry("rank", "zoo.cli.rank", "Rank backbones by how well they suit images."),
    Entry("cache", "zoo.cli.cache", "Show what zoo keeps; clear it."),
    Entry("plugins", "zoo.cli.plugins", "List plugins; show, check or begin one."),
)


def _note_without(context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    context.ensure_object(Settings).without.extend(names)


def _note_plugins(context: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> None:
    context.ensure_object(Settings).plugin_files.extend(files)


def _note_registry(context: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> None:
    settings = context.ensure_object(Settings)
    for file in files:
        if settings.registry_file not in (None, file):
            raise click.UsageError("--registry is given twice", context)
        settings.registry_file = file


def _note_debug(context: click.Context, _: click.Parameter, debug: bool) -> None:
    settings = context.ensure_object(Settings)
    settings.debug = settings.debug or debug


def common_options() -> list[click.Option]:
    """Return the options that stand before or after a command alike."""
    return [
        click.Option(
            ["--no-plugin"],
            multiple=True,
            metavar="NAME",
            expose_value=False,
            is_eager=True,
            callback=_note_without,
            help="Leave a plugin out; may be repeated.",
        ),
        click.Option(
            ["--plugin"],
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=_note_plugins,
            help="Load a python file as a plugin; may be repeated.",
        ),
        click.Option(
            ["--registry"],
            multiple=True,  # so that a second one is noticed
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=_note_registry,
            help="A registry.toml to lay over your own.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_note_debug,
            help="Show the traceback of an error.",
        ),
    ]


class ZooCommand(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *common_options()]
        super().__init__(*args, **kwargs)


class ComputingCommand(ZooCommand):
    """A command that runs networks, in a process that may arrange its memory for that."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, memory that a forward pass frees retained for the next one."""
        from zoo.engine.runtime.allocator import retain_freed_memory

        with retain_freed_memory():
            return super().invoke(ctx)


class ReaderGone(Exception):
    """Nobody reads our output any more, as after `zoo list | head`."""


def _nobody_reads() -> bool:
    """Return whether stdout is a pipe without a reader."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:
        return False  # no file, as in a test
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextmanager
def noticing_a_gone_reader() -> Iterator[None]:
    """Tell a reader that has gone from other broken pipes; click ends with 1 on either."""
    try:
        yield
    except BrokenPipeError as error:
        if _nobody_reads():
            raise ReaderGone from error
        raise EnvironmentProblem(f"a process that zoo talks to has gone: {error}") from error


class ZooGroup(ZooCommand, click.Group):
    """A group that knows its commands by name, and imports the one that runs.

    Args:
        table: the commands, in the order of the help.
    """

    def __init__(self, *args: Any, table: Sequence[Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = tuple(table)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line."""
        with noticing_a_gone_reader():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with noticing_a_gone_reader():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; without any argument, show the help as what is missing."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [entry.name for entry in self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        for entry in self.table:
            if entry.name == cmd_name:
                command: click.Command = import_module(entry.module).command
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a command line, or name the nearest."""
        name = args[0] if args else ""
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx), f"see `{ctx.command_path} --help`")
            within = f"{self.name} " if ctx.parent else ""
            raise click.UsageError(f"no {within}command is named {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in self.table])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete a command's name from the table."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(entry.name, help=entry.summary)
            for entry in self.table
            if entry.name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"zoo {__version__}")
        context.exit()


zoo_group = ZooGroup(
    name="zoo",
    table=COMMANDS,
    help="A model zoo for transfer learning: every backbone frozen, cut and trained the same way.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Show the version.",
        ),
    ],
)
