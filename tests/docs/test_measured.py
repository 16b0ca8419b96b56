"""What the pages say was measured is what the last measurement left."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from benchmarks.sides.reckoning import growth, table_of_costs
from benchmarks.sides.report import overview, page, rows
from benchmarks.the_pass import table as table_of_pass
from tests.docs.passages import DOCS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> Any:
    return json.loads((BENCHMARKS / f"{name}.json").read_text())


def test_the_cookbook_shows_the_last_measurement(monkeypatch):
    spec = spec_from_file_location("textbook", BENCHMARKS / "textbook.py")
    textbook = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, textbook)
    spec.loader.exec_module(textbook)
    results = load("textbook")
    page = " ".join((DOCS / "cookbook.md").read_text().split())
    assert results["date"] in page
    assert {key[0] for key in results["exercises"]} == set("12345678")
    for line in textbook.table(results):
        *_, said = (
            line.partition("augmentation ") if line.startswith("augmentation") else ("", line)
        )
        assert " ".join(said.rpartition(": ")[2].split()) in page


def in_words(numbers: list[str]) -> str:
    return f"{', '.join(numbers[:-1])} and {numbers[-1]}"


def test_the_readme_shows_the_last_measurement_of_heads():
    results = load("head_training")
    readme = (BENCHMARKS.parent / "README.md").read_text()
    assert "\n".join(overview(results)) in readme
    found = [rows(sides, results["pictures"]["images"]) for sides in results["networks"].values()]
    assert {sides["zoo"]["forwards"] for sides in found} == {2_464}
    assert {sides["zoo again"]["forwards"] for sides in found} == {0}
    floors = [sides["decode"]["after"] + sides["forward"]["after"] for sides in found]
    ratios = [sides["zoo"]["after"] / floor for sides, floor in zip(found, floors, strict=True)]
    gains = [
        sides["textbook 20 epochs, reckoned"]["after"] / sides["zoo 20 epochs"]["after"]
        for sides in found
    ]
    said = " ".join(readme.split())
    ratios_in_words = in_words([f"{ratio:.2f}" for ratio in ratios])
    assert f"it takes {ratios_in_words} times as long as decoding and a bare forward do" in said
    assert f"20 epochs are {in_words([f'{gain:.0f}' for gain in gains])} times quicker" in said


def test_the_page_of_heads_has_the_last_measurement():
    assert (BENCHMARKS / "head_training.md").read_text() == page(load("head_training"))


def test_the_readme_shows_the_last_measurement_of_all_layers():
    layers = load("all_layers")
    ratio = min(layers[key]["clock"]["median_ratio"] for key in ("cpu fp32", "cpu bf16"))
    readme = (BENCHMARKS.parent / "README.md").read_text()
    assert f"zoo makes {ratio:.2f} of the images" in readme


def test_scaling_shows_the_last_measurement_of_a_pass():
    said = (DOCS / "scaling.md").read_text()
    table, shares = "\n".join(table_of_pass(load("the_pass"))).split("\n\n")
    assert table in said
    assert shares in said


def test_scaling_shows_the_last_measurement_of_memory():
    measured = load("memory")["rows"]
    said = " ".join((DOCS / "scaling.md").read_text().split())
    counts = ("1,000", "4,000", "16,000")
    peaks = [f"{measured[f'train {count}']['memory_mb']:,}" for count in counts]
    assert f"took {in_words(peaks)} MB" in said
    million = measured["plan folder 1,000,000"]
    each = growth(measured, "plan folder")
    assert f"took {million['memory_mb']} MB, {each:.0f} bytes for each" in said
    assert f"and {million['seconds']:.0f} seconds" in said


def test_scaling_shows_what_many_images_cost_by_the_last_measurements():
    measured, heads = load("memory")["rows"], load("head_training")
    lines = list(table_of_costs(measured, heads))
    assert len(lines) == 8
    said = (DOCS / "scaling.md").read_text()
    assert "\n".join(lines) in said
    assert f"on {heads['pictures']['images']:,} photographs" in " ".join(said.split())
    passes = measured["solve 1,000,000"]["passes"]
    assert f"some {round(passes, -1)} times" in " ".join(said.split())
