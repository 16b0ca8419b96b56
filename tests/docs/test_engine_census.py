"""The census of engines: its rows, and their place in the rows of the conformance page."""

import pytest

from tools.census import ENGINE, EXPORT, check_backbone, engine_jobs
from tools.conformance_report import add_engines, merge
from zoo.engine.backends.openvino_model import computes_in
from zoo.registry.registry import load_registry
from zoo.testing.findings import PASSED


@pytest.mark.slow
def test_engine_row_of_small_network_passes():
    row = check_backbone("timm/test_resnet", ENGINE, fresh=False)
    detail = "" if computes_in("bf16") else "in float32"
    assert row["findings"] == {ENGINE: [PASSED, detail]}
    assert row["top1"] == 1.0
    assert row["probability"] < 0.01


def test_engine_rows_are_merged_and_not_repeated():
    found = {"findings": {ENGINE: [PASSED, ""]}}
    other = {"findings": {ENGINE: ["excepted", "cannot be traced"]}}
    names = ("timm/test_resnet", "timm/test_vit")
    rows = {(name, ENGINE): row for name, row in zip(names, (found, other), strict=True)}
    backbones = merge(rows)
    add_engines(backbones, rows)
    merged = {row["id"]: row.get("engine") for row in backbones}
    assert (merged[names[0]], merged[names[1]]) == ("+", "cannot be traced")
    assert merged["timm/resnet18"] is None
    backbones = [load_registry().get(name) for name in (*names, "timm/test_convnext")]
    assert [job["identity"] for job in engine_jobs(backbones, rows)] == ["timm/test_convnext"]


@pytest.mark.slow
def test_export_row_of_small_network_passes():
    row = check_backbone("timm/test_resnet", EXPORT, fresh=False)
    assert row["findings"] == {EXPORT: [PASSED, ""]}
    assert (row["images"], row["equal_decisions"]) == (4, 1.0)
    backbones = merge({})
    add_engines(backbones, {(row["id"], EXPORT): row})
    assert {each["id"]: each.get("export") for each in backbones}["timm/test_resnet"] == "+"
