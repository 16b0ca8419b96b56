"""docs/conformance.jsonl has a row for every backbone, and a column for every check."""

import json

import pytest

import zoo
from tests.docs.passages import DOCS
from zoo.files import library_versions
from zoo.testing.suite import NETWORK_KINDS, select_checks

FIRST, *ROWS = map(json.loads, (DOCS / "conformance.jsonl").read_text().splitlines())
INSTALLED = library_versions("torch", "torchvision", "timm")


def test_conformance_has_every_check():
    assert FIRST["checks"] == [check.name for check in select_checks(NETWORK_KINDS)]


@pytest.mark.skipif(FIRST["versions"] != INSTALLED, reason="the census ran with other versions")
def test_conformance_has_every_backbone():
    assert [row["id"] for row in ROWS] == [backbone.id for backbone in zoo.list_backbones()]
