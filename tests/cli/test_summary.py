"""What finetune and evaluate print at their end: 24 lines of 80 columns, with the report's path."""

import numpy as np
import pytest
import torch

from zoo.cli.summary import fitting, print_summary
from zoo.data.schema import Schema
from zoo.tasks.base import Outputs
from zoo.tasks.classification.metrics import ClassificationMetric
from zoo.tasks.classification.present import metric_table
from zoo.tasks.results import Table

ROWS = 24  # of which one is the prompt's


def rows_of(text):
    return sum(max(-(-len(line) // 80), 1) for line in text.splitlines())


def evaluated(names, labels, predicted):
    metric = ClassificationMetric(Schema(tuple(names)), torch.device("cpu"))
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), len(names)).float()
    metric.update(Outputs(logits), torch.tensor(labels))
    return metric_table(metric.report())


def test_evaluate_of_run_fits_terminal(cli, plainnet, image_folder, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
    common = ("--data", image_folder, "--device", "cpu")
    code, out, _ = cli("finetune", plainnet, *common, "--weights", "none", "--out", "run")
    assert code == 0
    assert rows_of(out) < ROWS
    lines = out.splitlines()
    assert lines[-3:] == [
        "model run/model.safetensors",
        "report run/report.html",
        "use   zoo predict run IMAGE...",
    ]
    assert any(line.startswith("      top-1 of val is between ") for line in lines)
    assert any(line.startswith("wrong ") for line in lines)
    code, out, _ = cli("evaluate", "run", *common)
    assert code == 0
    assert rows_of(out) < ROWS
    assert out.endswith("\nreport run/report.html\n")
    assert "CLASS" in out


@pytest.mark.parametrize("classes", [10, 20, 300])
@pytest.mark.parametrize("letters", [0, 40])
def test_classes_fit_terminal_weakest_shown(capsys, classes, letters):
    names = [f"class {number} {'n' * letters}" for number in range(classes)]
    labels = list(np.repeat(range(classes), 2))
    predicted = list(labels)
    predicted[-1] = predicted[-2] = 0
    lines, table = evaluated(names, labels, predicted)
    print_summary(lines, table, ["report here"])
    out = capsys.readouterr().out
    assert rows_of(out) < ROWS
    assert out.endswith("report here\n")
    table = out.partition("CLASS")[2]
    assert f"class {classes - 1} " in table
    printed = table.count("class ")
    assert (printed == classes) if classes == 10 else printed < classes
    if printed < classes:
        assert f"and {classes - printed:,} more; --json has them all" in out


def test_confusion_matrix_is_left_out_where_too_wide(capsys):
    for letters, shown in ((5, True), (60, False)):
        names = [f"{number}{'n' * letters}" for number in range(9)]
        print_summary(*evaluated(names, range(9), range(9)), [])
        assert ("  9\n" in capsys.readouterr().out.partition("CLASS")[2]) == shown


def test_table_without_ranks_shows_its_first_rows(capsys):
    table = Table(("NAME",), tuple((f"row{number}",) for number in range(50)))
    print_summary(["above"], table, [])
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == ["above", "", "NAME", "row0"]
    assert len(out) == ROWS - 1


def test_wrapped_lines_take_several_rows():
    lines = ["a" * 80, "b" * 81, "c"]
    assert fitting(lines, 1) == lines[:1]
    assert fitting(lines, 2) == lines[:1]
    assert fitting(lines, 3) == lines[:2]
    assert fitting(lines, 9) == lines
    assert fitting(lines, 0) == []
