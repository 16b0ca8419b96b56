"""CONTRIBUTING.md: every path that it names exists, and its layers are those of the linter."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = r"(?:zoo|tests|plugins|benchmarks|tools|docs|\.ci)/[\w./-]*"


def test_contributing_named_paths_exist():
    paths = set(re.findall(rf"`({PATH})`", TEXT)) | set(re.findall(r"\]\(([\w./-]+)\)", TEXT))
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_contributing_layers_match_import_linter():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers, *_ = (each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    order = [part.strip().removeprefix("zoo.") for layer in layers for part in layer.split("|")]
    section = TEXT.partition("\n## Where things go\n")[2].partition("\nInside ")[0]
    cells = re.findall(r"^\| ((?:`zoo/\w+(?:\.py|/)`(?:, )?)+) \|", section, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`zoo/(\w+)", cell)]
    assert sorted(named) == sorted(order)
    depths = [
        next(n for n, layer in enumerate(layers) if f"zoo.{name}" in re.findall(r"[\w.]+", layer))
        for name in named
    ]
    assert depths == sorted(depths, reverse=True)


def test_readme_links_contributing():
    assert "](CONTRIBUTING.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
