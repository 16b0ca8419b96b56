"""Write the results of a census as tables and as data.

`uv run python -m tools.conformance_report ROWS FOLDER`, in the root of the repository, reads the
rows that `tools.census` wrote, and writes `conformance.jsonl`, a line for each backbone, and
`conformance.md`, which follows from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import click

from tools.census import HEAVY, LIGHT, PROCESS, read_rows
from zoo.files import write_bytes
from zoo.registry.registry import load_registry
from zoo.testing.findings import ABSENT, BROKEN, EXCEPTED, KEPT
from zoo.testing.suite import SUITE

LETTERS = {KEPT: "+", ABSENT: ".", EXCEPTED: "x", BROKEN: "!"}
NOT_TRIED = "-"
REMARKABLE = (EXCEPTED, BROKEN)
Row = dict[str, Any]


def merge(rows: Mapping[tuple[str, str], Row]) -> list[Row]:
    """Return one row for each backbone of the registry, in its order.

    `checks` has a letter for each promise of the suite, in its order: `+` kept, `.` not applicable,
    `x` excepted by the description, `!` broken, and `-` where it was not tried.
    """
    merged = []
    for backbone in load_registry():
        light = rows.get((backbone.id, LIGHT), {})
        heavy = rows.get((backbone.id, HEAVY), {})
        findings = {**light.get("findings", {}), **heavy.get("findings", {})}
        letters = [
            LETTERS[findings[check.name][0]] if check.name in findings else NOT_TRIED
            for check in SUITE
        ]
        notes = {name: said for name, (status, said) in findings.items() if status in REMARKABLE}
        row = {
            "id": backbone.id,
            "params": light.get("params"),
            "group": light.get("group"),
            "structure": light.get("ran"),
            "values": heavy.get("ran"),
            "fresh": heavy.get("fresh", False),
            "checks": "".join(letters),
            "seconds": round(light.get("seconds", 0.0) + heavy.get("seconds", 0.0)),
        }
        if backbone.refuse:
            row["refused"] = backbone.refuse
        if notes:
            row["notes"] = notes
        merged.append(row)
    return merged


def verdict(row: Row) -> str:
    """Say what a row comes to: `conforms`, `refused`, `broken` or `not tried`."""
    if LETTERS[BROKEN] in row["checks"] or PROCESS in row.get("notes", {}):
        return "broken"
    if not row["checks"].strip(NOT_TRIED):
        return "not tried"
    return "refused" if "refused" in row else "conforms"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> list[str]:
    rule = ["---:" if name in right.split() else "---" for name in header]
    lines = [list(header), rule, *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _totals(rows: Sequence[Row]) -> list[str]:
    sources: dict[str, Counter[str]] = {}
    for row in rows:
        counted = sources.setdefault(row["id"].partition("/")[0], Counter())
        counted.update([verdict(row), "all"])
        counted.update({"values": bool(row["values"]), "fresh": bool(row["fresh"])})
    names = ("all", "conforms", "refused", "broken", "not tried", "values", "fresh")
    body = [[source, *(f"{counted[n]:,}" for n in names)] for source, counted in sources.items()]
    header = ["source", "backbones", "conform", "refused", "broken", "not tried", "values", "fresh"]
    return _table(header, body, "backbones conform refused broken values fresh")


def _checks(rows: Sequence[Row]) -> list[str]:
    body = []
    for place, check in enumerate(SUITE):
        counted = Counter(row["checks"][place] for row in rows)
        letters = (*LETTERS.values(), NOT_TRIED)
        body.append([f"`{check.name}`", check.promise, *(f"{counted[x]:,}" for x in letters)])
    header = ["check", "promise", "kept", "not applicable", "excepted", "broken", "not tried"]
    return _table(header, body, "kept excepted broken")


def _lead(rows: Sequence[Row], versions: Mapping[str, str]) -> list[str]:
    """Say what was tried, how, with what, and what came of it."""
    groups = {row["group"] for row in rows if row["group"] and "refused" not in row}
    tried = {row["group"] for row in rows if row["values"]}
    hours = sum(row["seconds"] for row in rows) / 3600
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    good = sum(verdict(row) in ("conforms", "refused") for row in rows)
    excepted = sum(LETTERS[EXCEPTED] in row["checks"] for row in rows)
    return [
        f"{good:,} of {len(rows):,} backbones keep every promise that has something to be about on "
        "them, or cannot be fine-tuned and are refused with the reason; the descriptions of "
        f"{excepted} of them except a promise, and say why. Tried with "
        f"{said}, on CPUs; {hours:.1f} hours of processes of one thread.",
        "",
        "This page follows from [conformance.jsonl](conformance.jsonl), and that from a census "
        "that can be stopped and goes on where it was, a row at a time:",
        "",
        "```sh",
        "uv run python -m tools.census census.jsonl   # again and again, until it ends",
        "uv run python -m tools.conformance_report census.jsonl docs",
        "```",
        "",
        "What is said and how a network is made was tried of every backbone: `meta` on torch's "
        "meta device, which has shapes and no values, at the size that stands beside it; `cpu` "
        "where a network reads its own numbers as it runs. What a network computes was tried of "
        f"the smallest of each group of like ones ({len(tried & groups):,} of {len(groups):,} "
        "groups: same class, kinds of heads, relation of widths, batch norm or not, fixed size or "
        "not), whose model file was loaded in a fresh process too, and of every one up to 15 "
        "million parameters, on pictures as small as it takes.",
    ]


def _backbones(rows: Sequence[Row]) -> list[str]:
    body = []
    for row in rows:
        notes = "; ".join(f"`{name}`: {detail}" for name, detail in row.get("notes", {}).items())
        params = f"{row['params']:,}" if row["params"] is not None else "?"
        values = (row["values"] or "") + (", fresh" if row["fresh"] else "")
        cells = [row["id"], params, row["structure"] or "", values, f"`{row['checks']}`"]
        body.append([*cells, row.get("refused") or notes])
    header = ["backbone", "parameters", "structure", "values", "checks", "note"]
    return _table(header, body, "parameters")


def render(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """Return the page for people.

    Args:
        rows: as `merge` gives them.
        versions: of the libraries that were tried.
    """
    legend = (
        "In this order each backbone has a mark below: `+` kept, `.` not applicable, `x` excepted "
        "by its description with the reason, `!` broken, `-` not tried."
    )
    lines = ["# Conformance", "", *_lead(rows, versions), "", "## Totals", "", *_totals(rows), ""]
    lines += ["## Checks", "", legend, "", *_checks(rows), ""]
    lines += ["## Backbones", "", *_backbones(rows), ""]
    # A table's row is one line, however long; a paragraph is not.
    return "\n".join(line if line.startswith("|") else fill(line, 100) for line in lines)


@click.command(help=__doc__)
@click.argument("rows", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(rows: Path, folder: Path) -> None:
    """Write the two files."""
    read = read_rows(rows)
    merged = merge(read)
    versions = next(iter(read.values()))["versions"]
    lines = [json.dumps({"versions": versions, "checks": [check.name for check in SUITE]})]
    lines += [json.dumps(row) for row in merged]
    write_bytes(folder / "conformance.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(folder / "conformance.md", render(merged, versions).encode())


if __name__ == "__main__":
    main()
