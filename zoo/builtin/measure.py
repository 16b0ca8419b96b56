"""What the libraries do not say of their networks, measured: parameters, and widths of heads.

`python -m zoo.builtin.measure timm > zoo/builtin/measured_timm.json`, and the same for torchvision,
renew what the adapters state of the versions that are installed. Every network is built once, and
nothing is downloaded.
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
    """Return how many parameters a network has, and how wide what its heads read is.

    Raises:
        BrokenBackbone: it does not build, or a head is not where it is said to be.
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
    """Print what was measured of every backbone of a source, one line for each."""
    rows = []
    for backbone in load_registry().find(source=source):
        rows.append(f"  {json.dumps(backbone.name)}: {json.dumps(measure(backbone))}")
        print(len(rows), backbone.id, file=sys.stderr, flush=True)
    print("{\n" + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main(sys.argv[1])
