"""Several runs side by side: metrics with intervals, settings that differ, curves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scipy.stats import binomtest

import zoo
from tests.reporting.test_report import check_page
from zoo.registry.registry import load_registry
from zoo.reporting.charts import draw
from zoo.reporting.compare import Comparison, mcnemar, run_names
from zoo.reporting.load import read_run
from zoo.reporting.write import find_task
from zoo.sections import DataTable, IntervalChart
from zoo.tasks.classification.statistics import wilson_interval

QUICK = {"weights": "none", "device": "cpu", "batch_size": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    """Two trainings by epochs that differ in their learning rate, and a copy of one."""
    from zoo.testing.fixtures import reset_caches

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm,-report")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        reset_caches()
        data = request.getfixturevalue("image_folder")
        for name, lr in (("slow", 0.001), ("fast", 0.1)):
            options = {"lr": lr, "epochs": 2, "out": folder / name, "input_size": 32}
            zoo.finetune("shufflenet_v2_x0_5", data=data, train="head", **options, **QUICK)
        reset_caches()
    shutil.copytree(folder / "slow", folder / "old" / "slow")
    return [folder / "slow", folder / "fast", folder / "old" / "slow"]


def compared(folders):
    read = [read_run(folder)[0] for folder in folders]
    return Comparison(read, [find_task(run.record["task"], load_registry()) for run in read])


def test_comparison_has_metrics_with_intervals(runs, cli, tmp_path):
    code, out, _ = cli("report", *runs[:2], "--json")
    assert code == 0
    answer = json.loads(out)
    path = Path(answer["path"])
    assert path == tmp_path / "comparison.html"
    assert answer["bytes"] == path.stat().st_size
    text = check_page(path).text.replace("\N{NO-BREAK SPACE}", " ")
    for each in answer["runs"]:
        record = json.loads((Path(each["path"]) / "run.json").read_text())
        assert each["metrics"] == record["metrics"]
        for values in each["metrics"].values():
            images = values["images"]
            low, high = wilson_interval(round(values["top1"] * images), images)
            assert f"{100 * low:.1f} % to {100 * high:.1f} % (95 %)" in text
    assert [each["name"] for each in answer["runs"]] == ["slow", "fast"]
    for title in ("Metrics of val", "Metrics of test", "Settings that differ", "Learning curves"):
        assert title in text


def test_accuracies_are_drawn_with_intervals(runs):
    comparison = compared(runs[:2])
    charts = [part for part in next(comparison.sections()).parts if isinstance(part, IntervalChart)]
    assert [chart.title.partition(", with")[0] for chart in charts] == [
        "Accuracy, val",
        "Accuracy, test",
    ]
    for chart, split in zip(charts, ("val", "test"), strict=True):
        for (name, *values), run in zip(chart.rows, comparison.runs, strict=True):
            metrics = run.record["metrics"][split]
            top1, images = metrics["top1"], metrics["images"]
            assert values == [top1, *wilson_interval(round(top1 * images), images)]
            assert name == run.folder.name
    drawn = ElementTree.fromstring(draw(charts[0], "anchor"))
    whole = [float(circle.get("cx")) for circle in drawn.iter("circle")]
    lines = [line for line in drawn.iter("line") if line.get("class") == "interval"]
    bounds = [(float(line.get("x1")), float(line.get("x2"))) for line in lines]
    # The share of an interval at which its value is drawn.
    for x, (left, right), (_, value, low, high) in zip(whole, bounds, charts[0].rows, strict=True):
        share = (value - low) / (high - low)
        assert (x - left) / (right - left) == pytest.approx(share, abs=0.01)


def test_mcnemar_is_binomial_test():
    for first, second in ((0, 0), (3, 3), (1, 9), (9, 1), (0, 6), (40, 61)):
        expected = binomtest(first, first + second).pvalue if first + second else 1
        assert mcnemar(first, second) == pytest.approx(expected)


def test_best_run_is_tested_against_others(runs):
    task = find_task("image-classification", load_registry())
    images = {"a": [1, 1, 1, 1, 1, 0], "b": [1, 0, 0, 0, 0, 1], "c": [1, 1, 1]}
    read = []
    for folder, right in zip(runs, images.values(), strict=True):
        names = [f"{number}.png" for number in range(len(right))]
        samples = {"name": names, "true": [1] * len(right), "classes": [[each] for each in right]}
        run = read_run(folder)[0]
        read.append(replace(run, folder=folder, results={"samples": {"val": samples}}))
    parts = [part for section in Comparison(read, [task] * 3).sections() for part in section.parts]
    (table,) = (part for part in parts if isinstance(part, DataTable) and "p" in part.header)
    # The third predicted other images.
    assert table.rows == (("runs0/fast", "4", "1", f"{binomtest(1, 5).pvalue:.2g}"),)
    assert table.caption == "runs0/slow and each other run on the same 6 images of val"


def test_settings_that_differ_are_named_alone(runs):
    same = compared([runs[0], runs[2]])
    assert same.names == ("runs0/slow", "old/slow")
    assert same.differences == {}
    differ = compared(runs[:2]).differences
    assert {name for name in differ if not name.startswith("version")} == {"lr"}
    assert differ["lr"] == ["0.001", "0.1"]


def test_curves_have_line_of_each_run(runs):
    comparison = compared(runs[:2])
    parts = {section.title: section.parts for section in comparison.sections()}
    charts = parts["Learning curves"]
    assert {"Validation loss by epoch", "Validation top-1 by epoch"} <= {
        chart.title for chart in charts
    }
    for chart in charts:
        assert [line.name for line in chart.series] == ["slow", "fast"]
        assert all(len(line.points) == 2 for line in chart.series)
    tables = [part for part in parts["Classes"] if isinstance(part, DataTable)]
    assert [row[0] for row in tables[0].rows] == ["flag", "mammal", "playing_card"]


def test_python_reports_several_runs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = zoo.report(runs)
    assert path == tmp_path / "comparison.html"
    assert zoo.report(tuple(map(str, runs)), out="mine.html").read_bytes() == path.read_bytes()
    with pytest.raises(zoo.UsageError, match="is given twice"):
        zoo.report([runs[0], runs[0].parent / "old" / ".." / "slow"])
    with pytest.raises(zoo.UsageError, match="there is no run"):
        zoo.report([])
    with pytest.raises(zoo.UsageError, match="does not exist"):
        zoo.report([runs[0], tmp_path / "nothing"])


def test_run_names_are_as_short_as_unique():
    paths = [Path("/a/x/1"), Path("/b/x/1"), Path("/b/x/2")]
    assert run_names(paths[1:]) == ("1", "2")
    assert run_names(paths) == ("a/x/1", "b/x/1", "b/x/2")
