"""Several trainings side by side: metrics, settings that differ, and learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.reporting.provenance import plan_rows
from zoo.sections import DataTable, IntervalChart, LineChart, Number, Part, Section, Series, Text
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
        """Yield of each split a chart of what has an interval, and a table, a run per row."""
        for split in self._splits():
            numbers = {
                name: task.split_numbers(split, run.record["metrics"][split])
                for name, run, task in zip(self.names, self.runs, self.tasks, strict=True)
                if split in run.record["metrics"]
            }
            yield from _interval_charts(numbers)
            yield self._metric_table(split, numbers)
            yield from self._paired(split)
        text = "Where intervals overlap, a difference may be due to chance."
        yield Text(text, note=True)

    def _paired(self, split: str) -> Iterator[Part]:
        """Yield a test of the best run against each other one, on images that both predicted."""
        right = {
            name: task.right_samples(run, split)
            for name, run, task in zip(self.names, self.runs, self.tasks, strict=True)
        }
        best = max(self.names, key=lambda name: sum(right[name].values()))
        rows = []
        for name in self.names:
            if name == best or not right[best] or right[name].keys() != right[best].keys():
                continue
            pairs = [(right[best][image], right[name][image]) for image in right[best]]
            first, second = pairs.count((True, False)), pairs.count((False, True))
            rows.append((name, f"{first:,}", f"{second:,}", f"{mcnemar(first, second):.2g}"))
        if rows:
            header = ("Run", f"Only {best} is right", "Only this run is right", "p")
            images = f"the same {len(right[best]):,} images of {split}"
            caption = f"{best} and each other run on {images}"
            yield DataTable(header, tuple(rows), header[1:], caption)
            text = (
                "p is the probability that equally good runs differ at least so much, by McNemar's "
                "exact test (1947). It finds smaller differences than intervals that overlap."
            )
            yield Text(text, note=True)

    def _splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for run in self.runs for name in run.record["metrics"]))

    def _metric_table(self, split: str, numbers: Mapping[str, Sequence[Number]]) -> DataTable:
        cells: dict[str, dict[str, str]] = {}
        for name, row in numbers.items():
            cells[name] = {}
            for each in row:
                label = each.label.removesuffix(f", {split}")
                cells[name][label] = each.value
                if each.interval:
                    cells[name][f"{label}: interval"] = each.interval
        labels = tuple(dict.fromkeys(label for row in cells.values() for label in row))
        rows = tuple(
            (name, *(cells.get(name, {}).get(label, "-") for label in labels))
            for name in self.names
        )
        return DataTable(("Run", *labels), rows, labels, f"Metrics of {split}")

    def _classes(self) -> Iterator[Part]:
        """Yield a table of a metric of each class, where the runs have the same classes."""
        for split in self._splits():
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
            label = self.tasks[0].class_labels.get(metric, metric)
            caption = f"{label} of each class, {split}"
            yield DataTable(("Class", *self.names), cells, self.names, caption)

    def _differences(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the settings that are not the same in all runs, with the value of each."""
        settings = []
        # If every run has one phase, its settings are compared whatever its name.
        named = any(len(run.record["plan"].get("phases", ())) > 1 for run in self.runs)
        for run in self.runs:
            record, plan = run.record, run.record["plan"]
            own = {"backbone": str(record["backbone"]), "task": str(record["task"])}
            data = plan.get("data", {})
            own["data"] = str(data.get("name", "-")) if data else "-"
            own["data fingerprint"] = str(data.get("fingerprint", "-"))[:12]
            own |= {name: value for name, (value, _) in plan_rows(run, named).items()}
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
                last = chart.series[-1]  # of validation, where there is one
                kind, title = last.name.capitalize(), chart.title
                if not title.startswith(kind):
                    title = f"{kind} {title[:1].lower()}{title[1:]}"
                charts.setdefault(title, chart)
                line = Series(name, last.points, dashed=number >= COLORS)
                lines.setdefault(title, []).append(line)
        for title, chart in charts.items():
            yield LineChart(title, chart.x, chart.y, tuple(lines[title]), chart.percent)
        without = [n for n, run in zip(self.names, self.runs, strict=True) if len(run.history) < 2]
        if charts and without:
            text = f"Solved for, or of one epoch, so without a curve: {', '.join(without)}."
            yield Text(text, note=True)

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


def mcnemar(first: int, second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: that of a fair coin.

    Args:
        first: number of samples that only the first classifier predicts rightly.
        second: that only the second one does.
    """
    both, tail, ways = first + second, 0, 1
    for count in range(min(first, second) + 1):
        tail += ways
        ways = ways * (both - count) // (count + 1)
    return min(1.0, 2 * tail / (1 << both))


def _interval_charts(numbers: Mapping[str, Sequence[Number]]) -> Iterator[IntervalChart]:
    """Yield a chart for each metric with an interval, given the numbers of each run by name."""
    rows: dict[str, list[tuple[str, float, float, float]]] = {}
    for name, row in numbers.items():
        for each in row:
            if each.bounds:
                rows.setdefault(each.label, []).append((name, *each.bounds))
    for label, intervals in rows.items():
        if len(intervals) > 1:
            title = f"{label}, with its interval of 95 %"
            yield IntervalChart(title, tuple(intervals), percent=True)


def run_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return names of run folders: their last part, or as much of their paths as differs."""
    parts = [folder.resolve().parts for folder in folders]
    length = 1
    while len({each[-length:] for each in parts}) < len(parts):
        length += 1
    return tuple("/".join(each[-length:]) for each in parts)
