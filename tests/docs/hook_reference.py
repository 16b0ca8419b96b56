"""Generate docs/hooks.md from the hooks: `python -m tests.docs.hook_reference`."""

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

All hooks, in the order of a training. A plugin implements any of them as functions of its module
marked with `@zoo.hookimpl`; [plugins.md](plugins.md) is the guide.

{about}
This page is generated from [zoo/hookspecs.py](../zoo/hookspecs.py) by
`python -m tests.docs.hook_reference > docs/hooks.md`.
"""


COLLECTS = "Collecting hook: the records it yields are registered."
# The fields of every event, which the head of the page documents.
COMMON = {field.name for field in fields(events.Event)}
DECIDES = "Deciding hook: a reason that it returns ends the training."
ADDS = "Adding hook: the sections that it returns are added to the report."
OBSERVES = "Observing hook: the return value is ignored."


@dataclass(frozen=True)
class Hook:
    """A hook specification.

    Args:
        name: of the function.
        signature: as in the source.
        text: docstring without the example.
        example: Python code.
        event: class of the event of an observing hook; None of a collecting hook.
    """

    name: str
    signature: str
    text: str
    example: str
    event: type | None


def _split(doc: str) -> tuple[str, str]:
    """Split a docstring into its text and the code of its example."""
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
    functions = {name: item for name, item in vars(hookspecs).items() if name.startswith("zoo_")}
    return [read_hook(name, function) for name, function in functions.items()]


def field_descriptions(event: type) -> dict[str, str]:
    """Return the description of each field of an event from its docstring, in one line."""
    _, _, arguments = inspect.cleandoc(event.__doc__ or "").partition("Args:\n")
    items = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _event_lines(event: type) -> list[str]:
    descriptions = field_descriptions(event)
    summary = inspect.cleandoc(event.__doc__ or "").partition("\n")[0]
    return [
        f"The event is a `zoo.{event.__name__}`. {summary}",
        "",
        "| field | type | description |",
        "|---|---|---|",
        *(
            f"| `{field.name}` | `{_cell(str(field.type))}` "
            f"| {_cell(descriptions.get(field.name, ''))} |"
            for field in fields(event)
            if field.name not in COMMON
        ),
        "",
    ]


def _kind(hook: Hook) -> str:
    if hook.event is None:
        return COLLECTS
    if "Section" in hook.signature:
        return ADDS
    return OBSERVES if hook.signature.endswith("-> None") else DECIDES


def _hook_lines(hook: Hook) -> list[str]:
    return [
        f"## `{hook.signature}`",
        "",
        f"*{_kind(hook)}*",
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
    """Return the module's docstring without its first paragraph, indented text as toml blocks."""
    _, _, text = inspect.cleandoc(hookspecs.__doc__ or "").partition("\n\n")
    return re.sub(
        r"((?:^    .*\n)+)",
        lambda match: f"```toml\n{textwrap.dedent(match[1])}```\n",
        f"{text}\n",
        flags=re.MULTILINE,
    )


def render() -> str:
    """Return the whole page."""
    lines = [line for hook in read_hooks() for line in _hook_lines(hook)]
    return "\n".join([HEAD.format(about=_about()), *lines]).rstrip() + "\n"


if __name__ == "__main__":
    print(render(), end="")
