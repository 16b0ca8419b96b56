"""Static tables of commands, and the click group that reads one.

Help and completion need names and summaries only; a command's module is imported when it runs.
"""

from __future__ import annotations

import gc
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zoo import __version__
from zoo.cli.output import naming_stdout, stdout
from zoo.errors import EnvironmentProblem, ExitCode, UsageError, did_you_mean, listed

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.registry.registry import Registry


class Settings:
    """Values of the options common to all commands.

    Attributes:
        without: plugins disabled by `--no-plugin`.
        plugin_files: files given by `--plugin`.
        registry_file: file given by `--registry`.
        computing: whether the command runs networks.
        debug: raise errors with their traceback instead of reporting one line.
        as_json: reserve stdout for JSON, and report errors as JSON.
        terminated: whether SIGTERM was received.
        interruption: what remains of an interrupted command, for its message.
    """

    def __init__(self) -> None:
        self.without: list[str] = []
        self.plugin_files: list[Path] = []
        self.registry_file: Path | None = None
        self.debug = False
        self.computing = False
        self.as_json = False
        self.terminated = False
        self.interruption = "nothing half-written is left"

    def registry(self) -> Registry:
        """Load the registry these options select."""
        from zoo.registry.registry import load_registry

        return load_registry(
            self.without, self.registry_file, self.plugin_files, computing=self.computing
        )

    def backbone_options(self) -> str:
        """Return the options another command needs to resolve the same backbones."""
        from shlex import quote

        options = [f" --plugin {quote(str(file))}" for file in self.plugin_files]
        if self.registry_file is not None:
            options.append(f" --registry {quote(str(self.registry_file))}")
        return "".join(options)


class CommandEntry(NamedTuple):
    """A command: its name, its module, and a one-line summary."""

    name: str
    module: str
    summary: str


COMMANDS = (
    CommandEntry("list", "zoo.cli.list", "List backbones, filtered and sorted."),
    CommandEntry("show", "zoo.cli.show", "Show the description of a backbone."),
    CommandEntry("finetune", "zoo.cli.finetune", "Fine-tune a backbone on a data set."),
    CommandEntry("check", "zoo.cli.check", "Check a data set without training on it."),
    CommandEntry("evaluate", "zoo.cli.evaluate", "Evaluate a model on a data set."),
    CommandEntry("predict", "zoo.cli.predict", "Predict images with a model or a backbone."),
    CommandEntry("embed", "zoo.cli.embed", "Write the features of images to a file."),
    CommandEntry("rank", "zoo.cli.rank", "Rank backbones by accuracy of their frozen features."),
    CommandEntry("report", "zoo.cli.report", "Write the report of a training as one HTML file."),
    CommandEntry("export", "zoo.cli.export", "Export a model to a file for other programs."),
    CommandEntry("push", "zoo.cli.push", "Push a trained model to the Hugging Face hub."),
    CommandEntry("register", "zoo.cli.register", "Name a trained model, for other commands."),
    CommandEntry("import", "zoo.cli.import_", "Convert a checkpoint of tensors to safetensors."),
    CommandEntry("fetch", "zoo.cli.fetch", "Fetch published weights into a folder."),
    CommandEntry("cache", "zoo.cli.cache", "List or clear the cache."),
    CommandEntry("plugins", "zoo.cli.plugins", "List plugins; show, check or create one."),
    CommandEntry("doctor", "zoo.cli.doctor", "Check the installation: versions, devices, disk."),
    CommandEntry("completion", "zoo.cli.completion", "Print the completion of a shell."),
)


def _add_disabled(context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    context.ensure_object(Settings).without.extend(names)


class FilePath(click.Path):
    """A path; imports `pathlib` only for a given one, because help does not need it."""

    def coerce_path_result(self, value: Any) -> Any:
        """Return it as a `pathlib.Path`."""
        from pathlib import Path

        return Path(value)


def _add_plugin_files(context: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> None:
    context.ensure_object(Settings).plugin_files.extend(files)


def _set_registry(context: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> None:
    settings = context.ensure_object(Settings)
    for file in files:
        if settings.registry_file not in (None, file):
            raise click.UsageError("--registry is given twice", context)
        settings.registry_file = file


def _set_debug(context: click.Context, _: click.Parameter, debug: bool) -> None:
    settings = context.ensure_object(Settings)
    settings.debug = settings.debug or debug


def common_options() -> list[click.Option]:
    """Return the options accepted before and after every command."""
    return [
        click.Option(
            ["--no-plugin"],
            multiple=True,
            metavar="NAME",
            expose_value=False,
            is_eager=True,
            callback=_add_disabled,
            help="Disable a plugin. Repeatable.",
        ),
        click.Option(
            ["--plugin"],
            multiple=True,
            type=FilePath(),
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=_add_plugin_files,
            help="Load a Python file as a plugin. Repeatable.",
        ),
        click.Option(
            ["--registry"],
            multiple=True,  # to detect a second one
            type=FilePath(),
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=_set_registry,
            help="A registry.toml that overrides your own.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_debug,
            help="Print the traceback of an error.",
        ),
    ]


class ZooCommand(click.Command):
    """A command that also takes the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *common_options()]
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UsageError: there are too many, as where the shell has expanded a pattern.
        """
        allowed, ctx.allow_extra_args = ctx.allow_extra_args, True
        extra = super().parse_args(ctx, args)
        if extra and not (allowed or ctx.resilient_parsing):
            paths = all(map(os.path.lexists, extra))
            quoting = "quote a pattern, so that the shell does not expand it"
            hint = quoting if paths else f"see `{ctx.command_path} --help`"
            raise UsageError(f"unexpected argument{'s'[: len(extra) - 1]}: {listed(extra)}", hint)
        return extra


def import_uncollected(module: str) -> bool:
    """Import a module, and torch with it, without garbage collections.

    They would take a quarter of the time. What is imported is never garbage, so that later
    collections need not traverse it either. No effect where torch is imported already: by another
    program, whose objects are not ours to exempt.

    Returns:
        Whether there are objects to return to the collector by `gc.unfreeze`.
    """
    if "torch" in sys.modules or not gc.isenabled():
        import_module(module)
        return False
    gc.disable()
    try:
        import_module(module)
    finally:
        gc.enable()
    gc.freeze()
    return True


class ComputingCommand(ZooCommand):
    """A command that runs networks, and configures collector and allocator of its process for that.

    Args:
        needs: the module that the command imports torch with.
    """

    def __init__(self, *args: Any, needs: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs = needs

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with memory freed by one forward pass retained for the next."""
        frozen = import_uncollected(self.needs)
        from zoo.engine.runtime.allocator import retain_freed_memory

        ctx.ensure_object(Settings).computing = True
        try:
            with retain_freed_memory():
                return super().invoke(ctx)
        finally:
            if frozen:
                gc.unfreeze()  # or native modules report at exit what was not collected


class OutputClosed(Exception):
    """The reader of stdout has closed it, as in `zoo list | head`."""


def _output_is_closed() -> bool:
    """Return whether stdout is a pipe without a reader."""
    poll = select.poll()
    try:
        poll.register(stdout().fileno(), 0)
    except OSError:
        return False  # stdout is not a file, as under pytest
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextmanager
def detecting_closed_output() -> Iterator[None]:
    """Raise `OutputClosed` only if stdout broke; click exits with 1 on any broken pipe.

    Raises:
        OutputClosed: the reader of stdout closed it.
        EnvironmentProblem: another pipe broke.
    """
    try:
        yield
    except BrokenPipeError as error:
        if _output_is_closed():
            raise OutputClosed from error
        raise EnvironmentProblem(f"a process that zoo writes to has exited: {error}") from error


class ZooGroup(ZooCommand, click.Group):
    """A group that reads its commands from a table, and imports the one that runs.

    Args:
        table: commands, in the order the help lists them.
    """

    def __init__(self, *args: Any, table: Sequence[CommandEntry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = tuple(table)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line."""
        with detecting_closed_output(), naming_stdout():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with detecting_closed_output():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; without any argument, print the help and exit with 2."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return [entry.name for entry in self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if the table has no such name."""
        for entry in self.table:
            if entry.name == cmd_name:
                command: click.Command = import_module(entry.module).command
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the command of a command line.

        Raises:
            click.UsageError: no command has the name; the message suggests the nearest.
        """
        name = args[0] if args else ""
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx), f"see `{ctx.command_path} --help`")
            group = f"{self.name} " if ctx.parent else ""
            raise click.UsageError(f"no {group}command is named {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in self.table])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete the name of a command from the table."""
        from click.shell_completion import CompletionItem

        items = [
            CompletionItem(entry.name, help=entry.summary)
            for entry in self.table
            if entry.name.startswith(incomplete)
        ]
        return items or click.Command.shell_complete(self, ctx, incomplete)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"zoo {__version__}")
        context.exit()


zoo_group = ZooGroup(
    name="zoo",
    table=COMMANDS,
    help="A model zoo for transfer learning: one command to fine-tune any backbone.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        ),
    ],
)
