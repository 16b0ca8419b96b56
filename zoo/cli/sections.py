"""Commands whose help lists the options in sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from zoo.cli.complete import complete_option
from zoo.cli.group import ComputingCommand
from zoo.options import OPTIONS, Option
from zoo.options.table import GROUPS

COMMON = "Every command"


class PerPhase(click.ParamType):
    """One value, or one per phase separated by commas."""

    def __init__(self, kind: Callable[[str], Any]) -> None:
        self.kind = kind
        self.name = "a whole number" if kind is int else "a number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Parse the values."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}, or several separated by commas", param, ctx)


class SectionedOption(click.Option):
    """An option with the section of the help it is listed in.

    Args:
        section: one of `GROUPS`.
    """

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(ComputingCommand):
    """A command whose help lists its options by section, in the order of `GROUPS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, the common options last."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in (*GROUPS, COMMON)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections[getattr(parameter, "section", COMMON)].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name.capitalize()):
                    formatter.write_dl(records)


def _as_click(option: Option) -> SectionedOption:
    settings: dict[str, Any] = {"help": option.description, "metavar": option.metavar}
    if option.switch:
        settings |= {"is_flag": True}
    elif option.range is not None:
        kind = option.range.kind
        settings |= {"type": PerPhase(kind) if option.per_phase else kind}
    if option.bare is not None:
        settings |= {"is_flag": False, "flag_value": option.bare}
    if (complete := complete_option(option)) is not None:
        settings["shell_complete"] = complete
    show = option.default is not None
    return SectionedOption(
        [option.flag], section=option.group, default=option.default, show_default=show, **settings
    )


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the command line being run gives, also those equal to the default."""
    source = click.get_current_context().get_parameter_source
    return {
        name: value
        for name, value in options.items()
        if source(name) is not click.core.ParameterSource.DEFAULT
    }


def training_options() -> list[SectionedOption]:
    """Return the options of a training as click options."""
    return [_as_click(option) for option in OPTIONS if not option.python_only]
