"""Measure what the libraries do not publish: parameter counts, and input widths of heads.

`python -m zoo.builtin.measure timm` adds the installed version to `measured_timm.json`, and
replaces the measurements of other versions if a backbone differs from theirs; the same for
torchvision. Every network is built once, without any download.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from zoo.builtin.measured import installed_version, measured_file
from zoo.files import write_bytes
from zoo.models.builder import build_on_meta
from zoo.models.heads import find_module, head_width, running_width
from zoo.registry.registry import load_registry
from zoo.spec import Backbone


def measure(backbone: Backbone) -> dict[str, Any]:
    """Return a network's number of parameters, and the input width of each head.

    Raises:
        BrokenBackbone: it does not build, or the path of a head does not exist.
    """
    model = build_on_meta(backbone, backbone.kwargs)
    widths = [
        head_width(find_module(model, head.path))
        or running_width(model, head.module_path, backbone.preprocess)
        for head in backbone.heads
    ]
    params = sum(parameter.numel() for parameter in model.parameters())
    return {"params": params, "in_features": widths}


def merge(
    recorded: Mapping[str, Any], version: str, measured: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Merge the measurements of a version into the recorded ones, where no backbone differs.

    If one differs, return those of the version alone.
    """
    known = recorded["backbones"]
    if any(known.get(name, row) != row for name, row in measured.items()):
        return {"versions": [version], "backbones": dict(measured)}
    rows = {**known, **measured}
    return {
        "versions": sorted({*recorded["versions"], version}, key=_numbers),
        "backbones": {name: rows[name] for name in sorted(rows)},
    }


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def render(content: Mapping[str, Any]) -> str:
    """Return the text of a file of measurements: one line for each backbone."""
    rows = [
        f"   {json.dumps(name)}: {json.dumps(row)}" for name, row in content["backbones"].items()
    ]
    versions = json.dumps(content["versions"])
    body = ",\n".join(rows)
    return f'{{\n  "versions": {versions},\n  "backbones": {{\n{body}\n  }}\n}}\n'


def main(source: str) -> None:
    """Measure every backbone of a library, and update its file."""
    measured = {}
    for backbone in load_registry().find(source=source):
        measured[backbone.name] = measure(backbone)
        print(len(measured), backbone.id, file=sys.stderr, flush=True)
    path, version = measured_file(source), installed_version(source)
    assert version is not None
    recorded = json.loads(path.read_text(encoding="utf-8"))
    write_bytes(path, render(merge(recorded, version, measured)).encode())


if __name__ == "__main__":
    main(sys.argv[1])
