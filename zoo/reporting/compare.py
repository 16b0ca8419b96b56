"""Several trainings side by side: metrics, settings that differ, and learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.reporting.provenance import plan_rows
from zoo.sections import DataTable, LineChart, Part, Section, Series, Text
from zoo.tasks import reports
from zoo.tasks.reports import ReportingTask, RunResults
from zoo.terminal import percent

# Series of a chart with colours of their own; further ones are dashed.
COLORS = 4


class Comparison:
    """Several trainings.

    Args:
        runs: at least two.
        tasks: of each.
    """

    def __init__(self, runs: Sequence[RunResults], tasks: Sequence[ReportingTask]) -> None:
        self.runs, self.tasks = runs, tasks
        self.names = run_names([run.folder for run in runs])
        self.differences = dict(self._differences())

    def summary(self) -> list[str]:
        """Return the lines below the title."""
        lines = [", ".join(self.names)]
        if "data" in self.differences:
            lines.append(
                "They were trained on different data, so their metrics do not compare images of "
                "one set"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the runs with their metrics, and the settings that differ, as data for JSON."""
        runs = [
            {
                "name": name,
                "path": str(run.folder.absolute()),
                "backbone": run.record["backbone"],
                "task": run.record["task"],
                "seconds": run.record.get("seconds"),
                "metrics": run.record["metrics"],
            }
            for name, run in zip(self.names, self.runs, strict=True)
        ]
        return {"runs": runs, "differences": self.differences}

    def sections(self) -> Iterator[Section]:
        """Yield the sections of the report."""
        yield Section("Results", tuple(self._metrics()), reports.NUMBERS)
        if classes := tuple(self._classes()):
            yield Section("Classes", classes, reports.NUMBERS + 1)
        yield Section("Settings that differ", (self._settings(),), reports.CURVES - 1)
        curves = tuple(self._curves())
        if curves:
            yield Section("Learning curves", curves, reports.CURVES)
        yield Section("Runs", (self._folders(),), reports.COMMAND)

    def _metrics(self) -> Iterator[Part]:
        """Yield a table of the metrics of each split, a run per row."""
        pairs = list(zip(self.runs, self.tasks, strict=True))
        for split in dict.fromkeys(split for run in self.runs for split in run.record["metrics"]):
            numbers = [
                task.split_numbers(split, run.record["metrics"][split])
                if split in run.record["metrics"]
                else ()
                for run, task in pairs
            ]
            labels = tuple(dict.fromkeys(each.label for row in numbers for each in row))
            rows = []
            for name, row in zip(self.names, numbers, strict=True):
                cells = {
                    each.label: f"{each.value}, {each.interval}" if each.interval else each.value
                    for each in row
                }
                rows.append((name, *(cells.get(label, "-") for label in labels)))
            header = ("Run", *labels)
            yield DataTable(header, tuple(rows), labels, f"Metrics of {split}")
        text = "Where intervals overlap, a difference may be due to chance."
        yield Text(text, note=True)

    def _classes(self) -> Iterator[Part]:
        """Yield a table of a metric of each class, where the runs have the same classes."""
        for split in dict.fromkeys(split for run in self.runs for split in run.record["metrics"]):
            each = [run.record["metrics"].get(split, {}).get("per_class") for run in self.runs]
            rows = [values for values in each if isinstance(values, Mapping)]
            if len(rows) < len(self.runs) or len({tuple(row) for row in rows}) > 1:
                continue
            metric = next(
                (key for row in rows[0].values() for key, v in row.items() if isinstance(v, float)),
                None,
            )
            if metric is None:
                continue
            cells = tuple(
                (name, *(percent(values[name].get(metric)) for values in rows)) for name in rows[0]
            )
            yield DataTable(
                ("Class", *self.names), cells, self.names, f"{metric} of each class, {split}"
            )

    def _differences(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the settings that are not the same in all runs, with the value of each."""
        settings = []
        for run in self.runs:
            record, plan = run.record, run.record["plan"]
            own = {"backbone": str(record["backbone"]), "task": str(record["task"])}
            data = plan.get("data", {})
            own["data"] = str(data.get("name", "-")) if data else "-"
            own["data fingerprint"] = str(data.get("fingerprint", "-"))[:12]
            own |= {name: value for name, (value, _) in plan_rows(run).items()}
            versions = record.get("environment", {}).get("versions", {})
            own |= {f"version of {name}": str(value) for name, value in versions.items()}
            settings.append(own)
        for name in dict.fromkeys(name for own in settings for name in own):
            values = [own.get(name, "-") for own in settings]
            if len(set(values)) > 1:
                yield name, values

    def _settings(self) -> Part:
        rows = tuple((name, *values) for name, values in self.differences.items())
        if not rows:
            return Text("None: the plans and versions are the same.")
        return DataTable(("Setting", *self.names), rows, (), "Of plan, data and versions")

    def _curves(self) -> Iterator[Part]:
        """Yield a chart of each metric by epoch, with a line for each run."""
        charts: dict[str, LineChart] = {}
        lines: dict[str, list[Series]] = {}
        pairs = zip(self.names, self.runs, self.tasks, strict=True)
        for number, (name, run, task) in enumerate(pairs):
            for chart in task.learning_curves(run):
                if not isinstance(chart, LineChart):
                    continue
                charts.setdefault(chart.title, chart)
                last = chart.series[-1]  # of validation, where there is one
                line = Series(name, last.points, dashed=number >= COLORS)
                lines.setdefault(chart.title, []).append(line)
        for title, chart in charts.items():
            yield LineChart(title, chart.x, chart.y, tuple(lines[title]), chart.percent)
        without = [n for n, run in zip(self.names, self.runs, strict=True) if len(run.history) < 2]
        if charts and without:
            yield Text(f"Solved for, or of one epoch, so without a curve: {', '.join(without)}.")

    def _folders(self) -> Part:
        rows = tuple(
            (
                name,
                str(run.folder),
                f"{run.record.get('seconds', 0):,.1f}",
                run.record.get("command") or "-",
            )
            for name, run in zip(self.names, self.runs, strict=True)
        )
        return DataTable(("Run", "Folder", "Seconds", "Command"), rows, ("Seconds",))


def run_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return names of run folders: their last part, or as much of their paths as differs."""
    parts = [folder.resolve().parts for folder in folders]
    length = 1
    while len({each[-length:] for each in parts}) < len(parts):
        length += 1
    return tuple("/".join(each[-length:]) for each in parts)
