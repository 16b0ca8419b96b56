"""What the pages say was measured is what the last measurement left."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from tests.docs.passages import DOCS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_cookbook_shows_the_last_measurement(monkeypatch):
    spec = spec_from_file_location("textbook", BENCHMARKS / "textbook.py")
    textbook = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, textbook)
    spec.loader.exec_module(textbook)
    results = json.loads((BENCHMARKS / "textbook.json").read_text())
    page = " ".join((DOCS / "cookbook.md").read_text().split())
    assert results["date"] in page
    assert {key[0] for key in results["exercises"]} == set("12345678")
    for line in textbook.table(results):
        *_, said = (
            line.partition("augmentation ") if line.startswith("augmentation") else ("", line)
        )
        assert " ".join(said.rpartition(": ")[2].split()) in page
