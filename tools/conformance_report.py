"""Write the results of a census as a page and as data.

`uv run python -m tools.conformance_report ROWS FOLDER`, in the root of the repository, reads the
rows written by `tools.census`, and writes `conformance.jsonl`, one line per backbone, and
`conformance.md`, which is rendered from it. Of rows of `--engine` or `--export` alone, it fills
their column in a `conformance.jsonl` that is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import click

from tools.census import ENGINE, EXPORT, HEAVY, LIGHT, PROCESS, read_rows
from zoo.files import write_bytes
from zoo.registry.registry import load_registry
from zoo.testing.findings import EXCEPTED, FAILED, NOT_APPLICABLE, PASSED
from zoo.testing.suite import NETWORK_KINDS, select_checks

SUITE = select_checks(NETWORK_KINDS)  # weights differ between machines
LETTERS = {PASSED: "+", NOT_APPLICABLE: ".", EXCEPTED: "x", FAILED: "!"}
NOT_RUN = "-"
WITH_NOTE = (EXCEPTED, FAILED)
Row = dict[str, Any]


def merge(rows: Mapping[tuple[str, str], Row]) -> list[Row]:
    """Return one row per backbone, in the order of the registry.

    `checks` has one character per check, in the order of the suite: `+` passed, `.` not applicable,
    `x` expected failure by the description, `!` failed, `-` not run.
    """
    merged = []
    for backbone in load_registry():
        light = rows.get((backbone.id, LIGHT), {})
        heavy = rows.get((backbone.id, HEAVY), {})
        findings = {**light.get("findings", {}), **heavy.get("findings", {})}
        letters = [
            LETTERS.get(findings[check.name][0], NOT_RUN) if check.name in findings else NOT_RUN
            for check in SUITE
        ]
        notes = {name: detail for name, (status, detail) in findings.items() if status in WITH_NOTE}
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


def add_engines(merged: Sequence[Row], rows: Mapping[tuple[str, str], Row]) -> None:
    """Add what the rows have of engines and exports: `+`, or why one does not take a backbone."""
    for row in merged:
        for kind in (ENGINE, EXPORT):
            finding = rows.get((row["id"], kind), {}).get("findings", {}).get(kind)
            if finding is not None:
                passed = " ".join(filter(None, (LETTERS[PASSED], finding[1])))
                row[kind] = passed if finding[0] == PASSED else finding[1]


def verdict(row: Row) -> str:
    """Return the verdict of a row: `conforms`, `refused`, `failed` or `not run`."""
    if LETTERS[FAILED] in row["checks"] or PROCESS in row.get("notes", {}):
        return "failed"
    if not row["checks"].strip(NOT_RUN):
        return "not run"
    return "refused" if "refused" in row else "conforms"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> list[str]:
    rule = ["---:" if name in right.split() else "---" for name in header]
    lines = [list(header), rule, *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _totals(rows: Sequence[Row]) -> list[str]:
    sources: dict[str, Counter[str]] = {}
    for row in rows:
        counts = sources.setdefault(row["id"].partition("/")[0], Counter())
        counts.update([verdict(row), "all"])
        counts.update({"values": bool(row["values"]), "fresh": bool(row["fresh"])})
    names = ("all", "conforms", "refused", "failed", "not run", "values", "fresh")
    body = [[source, *(f"{counts[n]:,}" for n in names)] for source, counts in sources.items()]
    header = ["source", "backbones", "conform", "refused", "failed", "not run", "values", "fresh"]
    return _table(header, body, "backbones conform refused failed values fresh")


def _checks(rows: Sequence[Row]) -> list[str]:
    body = []
    for index, check in enumerate(SUITE):
        counts = Counter(row["checks"][index] for row in rows)
        letters = (*LETTERS.values(), NOT_RUN)
        body.append([f"`{check.name}`", check.requirement, *(f"{counts[x]:,}" for x in letters)])
    header = ["check", "requirement", "passed", "not applicable", "excepted", "failed", "not run"]
    return _table(header, body, "passed excepted failed")


def _lead(rows: Sequence[Row], versions: Mapping[str, str]) -> list[str]:
    """Return the summary: results, versions, commands and coverage."""
    groups = {row["group"] for row in rows if row["group"] and "refused" not in row}
    covered = {row["group"] for row in rows if row["values"]}
    others = sum(bool(row["values"]) for row in rows) - len(covered & groups)
    hours = sum(row["seconds"] for row in rows) / 3600
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    good = sum(verdict(row) in ("conforms", "refused") for row in rows)
    excepted = sum(LETTERS[EXCEPTED] in row["checks"] for row in rows)
    return [
        f"{good:,} of {len(rows):,} backbones pass every check that applies to them, or cannot be "
        f"fine-tuned and are refused with the reason; the descriptions of {excepted} declare an "
        f"exception with its reason. Run with {libraries}, on CPUs; {hours:.1f} hours of "
        "single-threaded processes.",
        "",
        "This page is rendered from [conformance.jsonl](conformance.jsonl), the result of a "
        "resumable census:",
        "",
        "```sh",
        "uv run python -m tools.census census.jsonl   # repeat until it ends",
        "uv run python -m tools.conformance_report census.jsonl docs",
        "```",
        "",
        "Description and structure were checked for every backbone: `meta` on torch's meta device, "
        "which has shapes but no values, at the given image size; `cpu` where a network reads its "
        "own values in the forward pass. Values were checked for the smallest backbone of each "
        f"group ({len(covered & groups):,} of {len(groups):,} groups: same class, kinds of heads, "
        "relation of widths, with or without batch norm, fixed size or not), its model file loaded "
        f"in a fresh process too, and for {others:,} others, on images of the smallest supported "
        "size.",
        *_engine_lead(rows),
        *_export_lead(rows),
    ]


def _engine_lead(rows: Sequence[Row]) -> list[str]:
    """Return the paragraph about engines; none where none was checked."""
    checked = [row["engine"] for row in rows if "engine" in row]
    if not checked:
        return []
    passed = sum(each.startswith(LETTERS[PASSED]) for each in checked)
    return [
        "",
        f"The [engine](engines.md) was checked for the smallest of {len(checked)} groups, with "
        "random weights (`tools.census --engine`); those of more than 100 million parameters or a "
        f"million pixels, on the smallest images that they accept. OpenVINO converts {passed} of "
        "them and agrees with torch in float32 and, but for those that say so, bfloat16 (`+`); of "
        "the others the column has the reason why torch computes them.",
    ]


def _export_lead(rows: Sequence[Row]) -> list[str]:
    """Return the paragraph about exports; none where none was checked."""
    checked = [row[EXPORT] for row in rows if EXPORT in row]
    if not checked:
        return []
    passed = sum(each.startswith(LETTERS[PASSED]) for each in checked)
    return [
        "",
        f"The [export to ONNX](export.md) was checked for {len(checked)} backbones, with random "
        f"weights (`tools.census --export`): {passed} are exported and agree in ONNX Runtime "
        "(`+`); of the others the column has the reason why they are refused.",
    ]


def _backbones(rows: Sequence[Row]) -> list[str]:
    body = []
    kinds = [kind for kind in (ENGINE, EXPORT) if any(kind in row for row in rows)]
    for row in rows:
        notes = "; ".join(f"`{name}`: {detail}" for name, detail in row.get("notes", {}).items())
        params = f"{row['params']:,}" if row["params"] is not None else "?"
        values = (row["values"] or "") + (", fresh" if row["fresh"] else "")
        cells = [row["id"], params, row["structure"] or "", values, f"`{row['checks']}`"]
        further = [row.get(kind, NOT_RUN) for kind in kinds]
        body.append([*cells, *further, row.get("refused") or notes])
    header = ["backbone", "parameters", "structure", "values", "checks", *kinds, "note"]
    return _table(header, body, "parameters")


def render(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """Render the page.

    Args:
        rows: as returned by `merge`.
        versions: of the libraries.
    """
    legend = (
        "In this order, each backbone has one character per check below: `+` passed, `.` not "
        "applicable, `x` excepted by its description with the reason, `!` failed, `-` not run."
    )
    lines = ["# Conformance", "", *_lead(rows, versions), "", "## Totals", "", *_totals(rows), ""]
    lines += ["## Checks", "", legend, "", *_checks(rows), ""]
    lines += ["## Backbones", "", *_backbones(rows), ""]
    # Paragraphs are wrapped; rows of tables are not.
    return "\n".join(line if line.startswith("|") else fill(line, 100) for line in lines)


@click.command(help=__doc__)
@click.argument("rows", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(rows: Path, folder: Path) -> None:
    """Write the two files."""
    read = read_rows(rows)
    versions = next(iter(read.values()))["versions"]
    if {kind for _, kind in read} <= {ENGINE, EXPORT}:
        earlier = (folder / "conformance.jsonl").read_text().splitlines()
        merged = [json.loads(line) for line in earlier[1:]]
    else:
        merged = merge(read)
    add_engines(merged, read)
    lines = [json.dumps({"versions": versions, "checks": [check.name for check in SUITE]})]
    lines += [json.dumps(row) for row in merged]
    write_bytes(folder / "conformance.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(folder / "conformance.md", render(merged, versions).encode())


if __name__ == "__main__":
    main()
