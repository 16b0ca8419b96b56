"""Completion of arguments by the shell: names of backbones, models, runs, weights and plugins.

Called while a command line is typed: nothing here imports torch, enumerates a library, or prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING

import click

from zoo.cli.group import Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from zoo.options import Option
    from zoo.registry.registry import Registry

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]
# What the shell completes by itself, by the placeholder of a value.
PATHS = {"FILE": "file", "PATH": "file", "DATA": "file", "DIR": "dir", "RUN": "dir"}
RUNS = "runs"


def _completer(*paths: str) -> Callable[[Callable[..., Iterable[str]]], Complete]:
    """Return a decorator that completes with those names that begin with the typed text.

    Args:
        paths: `file` or `dir`, to have the shell complete those too.
    """

    def decorate(names: Callable[..., Iterable[str]]) -> Complete:
        @wraps(names)
        def complete(
            context: click.Context, parameter: click.Parameter, incomplete: str
        ) -> list[CompletionItem]:
            import logging

            from click.shell_completion import CompletionItem

            from zoo.errors import ZooError

            logging.disable(logging.CRITICAL)
            matches: list[str] = []
            # A registry file or plugin that is broken is reported when the command runs.
            with suppress(ZooError, OSError):
                matches = [
                    name for name in names(context, incomplete) if name.startswith(incomplete)
                ]
            empty = ""
            if os.environ.get("_ZOO_COMPLETE") == "zsh_complete":
                empty = " "  # zsh drops an empty value, and takes the next one for it
                if paths and "/" in incomplete:  # twice the same path would be ambiguous
                    matches = [name for name in matches if not os.path.lexists(name)]
            asked = [CompletionItem(empty, type=kind) for kind in paths]
            # First, since some shells forget the names before a path.
            return [*asked, *map(CompletionItem, matches)]

        return complete

    return decorate


def _registry(context: click.Context) -> Registry:
    return context.ensure_object(Settings).registry()


def _backbones(context: click.Context, incomplete: str) -> list[str]:
    return _registry(context).complete(incomplete)


def _own() -> list[str]:
    from zoo.registry.own_models import own_model_names

    return own_model_names()


def _runs() -> list[str]:
    """Return the run folders in `runs/`, where trainings are written by default."""
    from pathlib import Path

    return sorted(str(each.parent) for each in Path(RUNS).glob("*/run.json"))


@_completer()
def complete_backbone(context: click.Context, incomplete: str) -> list[str]:
    """Complete the name or id of a backbone."""
    return _backbones(context, incomplete)


@_completer()
def complete_own(context: click.Context, incomplete: str) -> list[str]:
    """Complete the name of a registered model."""
    return _own()


@_completer("file")
def complete_model(context: click.Context, incomplete: str) -> list[str]:
    """Complete a registered model, a run folder, a backbone, or a path."""
    return [*_own(), *_runs(), *_backbones(context, incomplete)]


@_completer("dir")
def complete_run(context: click.Context, incomplete: str) -> list[str]:
    """Complete a run folder."""
    from pathlib import Path

    unfinished = sorted(str(each.parent) for each in Path(RUNS).glob("*/checkpoints"))
    return sorted({*_runs(), *unfinished})


@_completer("file")
def complete_checked(context: click.Context, incomplete: str) -> list[str]:
    """Complete what `zoo plugins check` checks: a plugin, a backbone or a path."""
    plugins = [record.name for record in _registry(context).host.records]
    return [*plugins, *_backbones(context, incomplete)]


@_completer("file")
def complete_path(context: click.Context, incomplete: str) -> list[str]:
    """Complete a path."""
    return []


@_completer()
def complete_plugin(context: click.Context, incomplete: str) -> list[str]:
    """Complete the name of a plugin."""
    return [record.name for record in _registry(context).host.records]


@_completer()
def complete_format(context: click.Context, incomplete: str) -> list[str]:
    """Complete a format of `zoo export`."""
    from zoo.registry.formats import export_formats

    return [*export_formats(_registry(context))]


@_completer()
def complete_cached(context: click.Context, incomplete: str) -> list[str]:
    """Complete a kind of cache entries."""
    from zoo.cache import KINDS

    return [*KINDS]


@_completer()
def complete_task(context: click.Context, incomplete: str) -> list[str]:
    """Complete the name of a task."""
    return [*_registry(context).tasks]


@_completer()
def complete_source(context: click.Context, incomplete: str) -> list[str]:
    """Complete the first half of ids."""
    registry = _registry(context)
    # Some plugins register no backbone; a catalogue that is not cached is of one that does.
    filled = [name for name, s in registry.sources.items() if not s.is_enumerated() or s.names()]
    return [*filled, *registry.derived]


@_completer()
def complete_tag(context: click.Context, incomplete: str) -> list[str]:
    """Complete a tag of published weights."""
    return _tags(context)


@_completer("file")
def complete_weights(context: click.Context, incomplete: str) -> list[str]:
    """Complete `--weights`: `auto`, a tag, a run folder, a registered model, or a path."""
    return ["auto", *_tags(context), *_own(), *_runs()]


@_completer("file")
def complete_start(context: click.Context, incomplete: str) -> list[str]:
    """Complete the `--weights` of a training, which may be `none`."""
    return ["auto", "none", *_tags(context), *_own(), *_runs()]


def _tags(context: click.Context) -> list[str]:
    """Return the tags of the weights that the backbones named on the line publish."""
    from zoo.registry.weight_names import published_tags

    registry = _registry(context)
    # An option without its value ends click's parsing, and leaves all arguments where they were.
    values = [context.args, *context.params.values()]
    words = [each for value in values if isinstance(value, (list, tuple)) for each in value]
    words += [value for value in values if isinstance(value, str)]
    names = [registry.config.aliases.get(word, word) for word in words if isinstance(word, str)]
    return published_tags(names, [*registry.sources.values(), *registry.derived.values()])


def complete_option(option: Option) -> Complete | None:
    """Return what completes the value of an option of a training; None for nothing."""
    special = {"weights": complete_start, "resume": complete_run}
    if option.name in special:
        return special[option.name]
    if option.choices:
        return _completer()(lambda context, incomplete: option.choices)
    if kind := PATHS.get(option.metavar or ""):
        return _completer(kind)(lambda context, incomplete: ())
    return None
