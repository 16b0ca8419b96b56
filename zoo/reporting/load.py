"""Read what a run folder stores of a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from shlex import quote
from typing import Any

from zoo.errors import UsageError, WeightsError, unknown_format
from zoo.sections import Section
from zoo.tasks.reports import RunResults
from zoo.tensorfile import read_file

RECORD, HISTORY, RESULTS = "run.json", "history.csv", "results.json"
FORMAT = 1
# Without these, a record is not that of a training.
REQUIRED = ("backbone", "task", "metrics", "plan")


def read_run(folder: Path) -> tuple[RunResults, tuple[Section, ...]]:
    """Return the results of a run, and the sections that plugins added to its report.

    Raises:
        UsageError: the folder is not that of a finished training.
        WeightsError: a file of it is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        if (folder / "checkpoints").is_dir():
            hint = f"`zoo finetune --resume {quote(str(folder))}` goes on, and writes the report"
            raise UsageError(f"the training of {folder} is not finished", hint)
        what = "is not a run folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}", "give the folder of a training")
    record = _read_json(path)
    if missing := [name for name in REQUIRED if name not in record]:
        raise WeightsError(f"{path} is damaged: it has no {missing[0]}")
    results = _read_json(folder / RESULTS) if (folder / RESULTS).exists() else {}
    version = results.get("format", FORMAT)
    if version != FORMAT:
        raise unknown_format(folder / RESULTS, version, FORMAT)
    try:
        added = tuple(map(Section.from_dict, results.get("sections", ())))
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise WeightsError(f"{folder / RESULTS} is damaged: {error}") from error
    run = RunResults(folder, record, _read_history(folder), results.get("task", {}))
    return run, added


def _read_json(path: Path) -> dict[str, Any]:
    data, _ = read_file(path)
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    if not isinstance(plain, dict):
        raise WeightsError(f"{path} is damaged: it is no object")
    return plain


def _read_history(folder: Path) -> tuple[dict[str, str], ...]:
    path = folder / HISTORY
    if not path.exists():
        return ()
    data, _ = read_file(path)
    return tuple(csv.DictReader(data.decode(errors="replace").splitlines()))
