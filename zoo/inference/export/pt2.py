"""A file of `torch.export`: torch runs it without the code of the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.files import canonical_json
from zoo.inference.export.exporter import Exporter, Run, Source, conversion_errors
from zoo.inference.export.graph import quiet, trace

# File in the archive, with the description of the network.
DESCRIPTION = "zoo.json"


class PT2Exporter(Exporter):
    """Writes files of `torch.export.save`, with the preprocessing in the graph."""

    suffix = ".pt2"

    def write(self, source: Source, path: Path) -> dict[str, Any]:
        """Trace the network, and write it. See `Exporter.write`."""
        graph = trace(source)
        description = canonical_json(source.description)
        with quiet(), conversion_errors(f"torch cannot save {source.model.backbone}", ""):
            torch.export.save(graph.program, path, extra_files={DESCRIPTION: description})
        return {
            "any_batch": graph.any_batch,
            "outputs": list(graph.outputs),
            "notes": [f"torch {torch.__version__.partition('+')[0]}, {graph.describe()}"],
        }

    def load(self, source: Source, path: Path) -> Run:
        """Run it in torch. See `Exporter.load`."""
        with quiet(), conversion_errors(f"torch cannot load {source.model.backbone}", ""):
            module = torch.export.load(path).module()

        def run(images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
            with torch.no_grad():
                outputs = module(torch.from_numpy(images))
            return {name: values.numpy() for name, values in outputs.items()}

        return run
