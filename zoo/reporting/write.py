"""Write the report of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.data.outputs import check_output
from zoo.errors import UsageError, WeightsError, ZooError, one_line
from zoo.files import write_bytes
from zoo.registry.plugin_scope import current
from zoo.registry.registry import Registry
from zoo.reporting.compare import Comparison
from zoo.reporting.load import read_run
from zoo.reporting.page import render
from zoo.reporting.provenance import command_section, plan_section
from zoo.tasks.base import load_task
from zoo.tasks.reports import ReportingTask, RunResults

REPORT, COMPARISON = "report.html", "comparison.html"


class _AnyTask(ReportingTask):
    """A task that is not installed: what every task reports."""

    columns = ("loss",)
    labels = {"loss": "loss"}  # noqa: RUF012


def find_task(name: str, registry: Registry | None = None) -> ReportingTask:
    """Return the task of a name; one that reports what every task does if it is not installed.

    Args:
        name: of the task.
        registry: of its plugin; None for those that this process has loaded.
    """
    registries = [registry] if registry is not None else [*current().registries.values()]
    for each in reversed(registries):
        try:
            return load_task(each.task(name))
        except ZooError:
            continue
    return _AnyTask()


def report(
    folders: Sequence[Path], registry: Registry | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Write the report of a run, or of several side by side, and describe the file.

    Args:
        folders: of the runs.
        registry: of the tasks' plugins; None for those that this process has loaded.
        out: of the report; None for `report.html` in the folder, for `comparison.html` here.

    Returns:
        `path` and `bytes` of the report; of several, `runs` and `differences` too.

    Raises:
        UsageError: a folder is not that of a finished training, or is given twice; `out` is an
            image, or weights.
        WeightsError: a file of it is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    if out is not None:
        check_output(out, "--out", REPORT)
    further: dict[str, Any] = {}
    if len(folders) == 1:
        path = write_report(folders[0], registry, out)
    else:
        path, further = write_comparison(folders, registry, out)
    return {"path": str(path.absolute()), "bytes": path.stat().st_size, **further}


def write_comparison(
    folders: Sequence[Path], registry: Registry | None = None, out: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write one report of several runs; return its path, and their metrics and differences.

    Raises:
        UsageError: a folder is not that of a finished training, or is given twice.
        WeightsError: a file of it is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UsageError(f"{folder} is given twice", "give each run once")
        seen.add(folder.resolve())
    runs = [read_run(folder)[0] for folder in folders]
    path = out or Path(COMPARISON)
    title = f"{len(runs)} trainings side by side"
    with _refusing_damaged(folders):
        comparison = Comparison(runs, [find_task(run.record["task"], registry) for run in runs])
        page = render(title, comparison.summary(), comparison.sections())
        described = comparison.to_dict()
    write_bytes(path, page)
    return path, described


def write_report(folder: Path, registry: Registry | None = None, out: Path | None = None) -> Path:
    """Write the report of a run, and return its path.

    Args:
        folder: the run folder.
        registry: of the task's plugin; None for those that this process has loaded.
        out: of the report; None for `report.html` in the folder.

    Raises:
        UsageError: the folder is not that of a finished training.
        WeightsError: a file of it is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    run, added = read_run(folder)
    path = out or folder / REPORT
    with _refusing_damaged([folder]):
        task = find_task(run.record["task"], registry)
        sections = [*task.report_sections(run), *added, plan_section(run), command_section(run)]
        page = render(_title(run), _summary(run), sections)
    write_bytes(path, page)
    return path


@contextmanager
def _refusing_damaged(folders: Sequence[Path]) -> Iterator[None]:
    """Raise what values of another type or name than a training writes lead to as one error.

    Raises:
        WeightsError: names the folders.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        names = ", ".join(map(str, folders))
        message = f"no report can be made of run.json and results.json in {names}"
        hint = "they are damaged, or the task has changed; --debug prints the traceback"
        raise WeightsError(f"{message}: {one_line(error)}", hint) from error


def _title(run: RunResults) -> str:
    """Return the backbone and the data."""
    plan = run.record["plan"]
    data = plan.get("data", {}).get("name", "")
    return f"{run.record['backbone']} on {data}" if data else str(run.record["backbone"])


def _summary(run: RunResults) -> list[str]:
    """Return the lines below the title."""
    plan = run.record["plan"]
    images = plan.get("data", {}).get("images", {})
    counts = ", ".join(f"{count:,} {split}" for split, count in images.items())
    lines = [
        f"{run.record['task']}, weights {plan.get('weights', 'unknown')}, "
        f"recipe {plan.get('recipe', 'unknown')}",
        f"{counts} images" if counts else "",
    ]
    if run.record.get("demonstration"):
        lines.append("A demonstration on the embedded images")
    if not run.results:
        lines.append(
            "Without the results of single images: they were not stored, or an earlier zoo "
            "trained it"
        )
    return [line for line in lines if line]
