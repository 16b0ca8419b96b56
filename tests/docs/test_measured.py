"""What the pages say was measured is what the last measurement left."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from benchmarks.sides.report import rows
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


def test_the_readme_shows_the_last_measurement_of_heads():
    results = json.loads((BENCHMARKS / "head_training.json").read_text())
    found = rows(results["networks"]["resnet18"], results["pictures"]["images"])
    readme = (BENCHMARKS.parent / "README.md").read_text()
    shown = {
        "zoo": "zoo",
        "zoo, again on the same images": "zoo again",
        "zoo, 20 epochs": "zoo 20 epochs",
        "the textbook's loop, 1 epoch": "textbook",
        "the textbook's loop, 20 epochs, reckoned": "textbook 20 epochs, reckoned",
        "transformers' Trainer, 1 epoch": "transformers",
        "fastai, 1 epoch": "fastai",
    }
    for label, side in shown.items():
        row = found[side]
        numbers = f"{row['seconds']:,.0f} | {row['after']:,.0f} | {row['forwards']:,.0f}"
        assert f"| {label} | {numbers} |" in readme
    right = [f"{found[side]['top1']:.2f}" for side in ("zoo", "zoo 20 epochs", "textbook")]
    said = "has {} of 400 held-out pictures right, its 20 epochs {}, one epoch of the textbook's"
    assert said.format(*right) in " ".join(readme.split())
    layers = json.loads((BENCHMARKS / "all_layers.json").read_text())
    ratio = min(layers[key]["clock"]["median_ratio"] for key in ("cpu fp32", "cpu bf16"))
    assert f"zoo makes {ratio:.2f} of the images" in readme
