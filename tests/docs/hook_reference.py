"""docs/hooks.md, made of the hooks themselves: `python -m tests.docs.hook_reference`."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from zoo import events, hookspecs

HEAD = """\
# Hooks

Every hook that zoo calls, in the order of a training. A plugin implements those that it wants, as
functions of its module marked with `@zoo.hookimpl`; [plugins.md](plugins.md) is the guide.

{about}
This page is made of [zoo/hookspecs.py](../zoo/hookspecs.py), by
`python -m tests.docs.hook_reference > docs/hooks.md`.
"""


COLLECTS = "Collects: zoo keeps what it yields."
OBSERVES = "Observes: zoo tells it, and does nothing with what it returns."


@dataclass(frozen=True)
class Hook:
    """A hook as its specification has it.

    Args:
        name: of the function.
        signature: the whole of it, as it stands in the source.
        text: its docstring without the example.
        example: python code.
        event: the class of the event that it observes; None where it collects.
    """

    name: str
    signature: str
    text: str
    example: str
    event: type | None


def _split(doc: str) -> tuple[str, str]:
    """Return a docstring's text, and the code of its example."""
    text, _, code = inspect.cleandoc(doc).partition("Example:\n")
    return text.strip(), f"import zoo\n\n\n{textwrap.dedent(code).strip()}"


def read_hook(name: str, function: Callable[..., Any]) -> Hook:
    """Read one hook."""
    text, example = _split(function.__doc__ or "")
    signature = f"{name}{inspect.signature(function)}".replace("'", "")
    kinds = [
        getattr(events, str(parameter.annotation), None)
        for parameter in inspect.signature(function).parameters.values()
    ]
    event = next((kind for kind in kinds if is_dataclass(kind)), None)
    return Hook(name, signature, text, example, event)


def read_hooks() -> list[Hook]:
    """Return every hook of zoo/hookspecs.py, in its order."""
    found = {name: made for name, made in vars(hookspecs).items() if name.startswith("zoo_")}
    return [read_hook(name, function) for name, function in found.items()]


def meanings(event: type) -> dict[str, str]:
    """Return what the docstring of an event says of each field, in one line."""
    _, _, said = inspect.cleandoc(event.__doc__ or "").partition("Args:\n")
    items = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", said, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _event_lines(event: type) -> list[str]:
    said = meanings(event)
    summary = inspect.cleandoc(event.__doc__ or "").partition("\n")[0]
    return [
        f"The event is a `zoo.{event.__name__}`. {summary}",
        "",
        "| field | type | meaning |",
        "|---|---|---|",
        *(
            f"| `{field.name}` | `{_cell(str(field.type))}` | {_cell(said.get(field.name, ''))} |"
            for field in fields(event)
        ),
        "",
    ]


def _hook_lines(hook: Hook) -> list[str]:
    return [
        f"## `{hook.signature}`",
        "",
        f"*{OBSERVES if hook.event else COLLECTS}*",
        "",
        hook.text,
        "",
        "```python",
        hook.example,
        "```",
        "",
        *(_event_lines(hook.event) if hook.event else []),
    ]


def _about() -> str:
    """Return what the module says of all hooks; its indented passage becomes a toml block."""
    _, _, said = inspect.cleandoc(hookspecs.__doc__ or "").partition("\n\n")
    return re.sub(
        r"((?:^    .*\n)+)",
        lambda found: f"```toml\n{textwrap.dedent(found[1])}```\n",
        f"{said}\n",
        flags=re.MULTILINE,
    )


def render() -> str:
    """Return the whole page."""
    lines = [line for hook in read_hooks() for line in _hook_lines(hook)]
    return "\n".join([HEAD.format(about=_about()), *lines]).rstrip() + "\n"


if __name__ == "__main__":
    print(render(), end="")
