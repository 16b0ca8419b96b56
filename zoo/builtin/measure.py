"""Measure what the libraries do not publish: parameter counts, and input widths of heads.

`python -m zoo.builtin.measure timm > zoo/builtin/measured_timm.json`, and the same for torchvision,
update the adapters' data to the installed versions. Every network is built once, without any
download.
"""

from __future__ import annotations

import json
import sys
from typing import Any

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


def main(source: str) -> None:
    """Print the measurements of every backbone of a source, one line each."""
    rows = []
    for backbone in load_registry().find(source=source):
        rows.append(f"  {json.dumps(backbone.name)}: {json.dumps(measure(backbone))}")
        print(len(rows), backbone.id, file=sys.stderr, flush=True)
    print("{\n" + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main(sys.argv[1])
