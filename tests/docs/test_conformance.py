"""docs/conformance.md: it follows from its data, and its data is of every backbone there is."""

import pytest

import zoo
from tests.docs.passages import DOCS
from zoo.files import library_versions
from zoo.testing.findings import BROKEN
from zoo.testing.report import LETTERS, NOT_TRIED, read_data, render, verdict
from zoo.testing.suite import STRUCTURE, SUITE, VALUES

ROWS, VERSIONS = read_data(DOCS / "conformance.jsonl")
SAME = library_versions("torch", "torchvision", "timm") == VERSIONS


def test_the_page_follows_from_the_data():
    assert (DOCS / "conformance.md").read_text() == render(ROWS, VERSIONS)


def marks(row, kind):
    return [mark for mark, check in zip(row["checks"], SUITE, strict=True) if check.kind == kind]


@pytest.mark.skipif(not SAME, reason="the census was taken with other versions of the libraries")
def test_every_backbone_there_is_was_tried():
    assert [row["id"] for row in ROWS] == [backbone.id for backbone in zoo.list_backbones()]
    assert all(NOT_TRIED not in marks(row, STRUCTURE) for row in ROWS)


def test_each_conforms_or_is_refused():
    assert {verdict(row) for row in ROWS} == {"conforms", "refused"}
    assert not any(LETTERS[BROKEN] in row["checks"] for row in ROWS)
    builtin = [row for row in ROWS if row["id"].startswith(("torchvision/", "timm/"))]
    assert len(builtin) == 1451
    assert sum(verdict(row) == "refused" for row in builtin) == 7


def test_values_were_tried_of_every_group_and_of_all_that_are_small():
    fine = [row for row in ROWS if "refused" not in row]
    tried = {row["group"] for row in fine if row["values"] and row["fresh"]}
    assert tried == {row["group"] for row in fine}
    for row in fine:
        if row["values"]:
            assert NOT_TRIED not in marks(row, VALUES)
        assert row["values"] or row["params"] > 15_000_000, row["id"]
