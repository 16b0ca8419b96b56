"""The sections of every report: the plan, and how the training was run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import counted
from zoo.sections import BarChart, Code, DataTable, Number, Numbers, Part, Section, Text
from zoo.tasks.reports import COMMAND, PLAN, RunResults

# Values of the plan that are shown elsewhere, or by others.
HIDDEN = ("schema", "classes", "reasons", "phases", "backbone", "task", "data", "demonstration")
LONGEST = 120


def plan_section(run: RunResults) -> Section:
    """Return the plan with the reason of each value, and what had to change."""
    rows = [(name, value, reason) for name, (value, reason) in plan_rows(run).items()]
    parts: list[Part] = []
    adjusted = tuple(
        (each["name"], _text(each["value"]), each["reason"])
        for each in run.record.get("adjustments", ())
    )
    if adjusted:
        caption = "What had to change while it ran"
        parts.append(DataTable(("Value", "Changed to", "Reason"), adjusted, (), caption))
    caption = "Every value that the training was run with"
    parts.append(DataTable(("Value", "As planned", "Reason"), tuple(rows), (), caption))
    return Section("Plan", tuple(parts), PLAN)


def plan_rows(run: RunResults, named: bool = True) -> dict[str, tuple[str, str]]:
    """Return value and reason of each setting of a plan, by its name.

    Args:
        run: with the plan.
        named: whether the name of a phase is part of the names of its settings.
    """
    plan, reasons = run.record["plan"], run.record["plan"].get("reasons", {})
    rows = {
        name: (_text(value), reasons.get(name, ""))
        for name, value in plan.items()
        if name not in HIDDEN
    }
    for number, phase in enumerate(plan.get("phases", ())):
        for name, value in phase.items():
            if name != "name":
                reason = reasons.get(f"phases.{number}.{name}", "")
                label = f"{phase.get('name', number)}: {name}" if named else name
                rows[label] = _text(value), reason
    return rows


def _text(value: Any) -> str:
    """Return a value of the plan as text: no JSON for what people read."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "none"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(_text, value)) or "none"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4].rstrip(', ')} ..."


def command_section(run: RunResults) -> Section:
    """Return the command, the seconds of each stage, and the versions."""
    return Section("How it was run", tuple(_command_parts(run.record)), COMMAND, "run")


def _command_parts(record: Mapping[str, Any]) -> Iterator[Part]:
    command = record.get("command")
    if command:
        yield Code(command)
    elif "command" in record:
        yield Text("It was run from Python, with objects that a command line cannot contain.")
    numbers = [Number("Seconds", f"{record['seconds']:,.1f}", "from start to the end")]
    if record.get("images_per_second"):  # none where all features were cached
        rate = f"{record['images_per_second']:,.1f}"
        numbers.append(Number("Images per second", rate, "through the backbone"))
    if "backbone_forwards" in record:
        forwards = f"{record['backbone_forwards']:,}"
        numbers.append(Number("Backbone forwards", forwards, "images; cached features need none"))
    yield Numbers(tuple(numbers))
    if stages := record.get("stages"):
        yield BarChart("Seconds of each stage", tuple((k, (v,)) for k, v in stages.items()))
    environment = record.get("environment", {})
    rows = [(name, str(version)) for name, version in environment.get("versions", {}).items()]
    rows += [(n, _text(v)) for n, v in environment.items() if n != "versions" and v is not None]
    rows += [("model", record.get("model", "")), ("sha256", record.get("sha256", ""))]
    if run_id := record.get("run_id"):
        rows.append(("run", run_id))
    base = record.get("base", {})
    rows += [(f"base {name}", _text(base[name])) for name in ("tag", "license") if base.get(name)]
    yield DataTable(("", "Value"), tuple((k, v) for k, v in rows if v), (), "Versions and files")
    if bad := record.get("bad_images"):
        yield DataTable(
            ("Image", "Reason"),
            tuple((path, str(reason)) for path, reason in list(bad.items())[:100]),
            (),
            f"{counted(len(bad), 'unreadable image')}, skipped",
        )
