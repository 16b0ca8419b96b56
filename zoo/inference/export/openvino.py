"""OpenVINO's own format: a folder of `model.xml` and `model.bin`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.engine.backends.openvino_model import core, import_openvino
from zoo.files import canonical_json
from zoo.inference.export.exporter import Exporter, Run, Source, conversion_errors
from zoo.inference.export.graph import INPUT, quiet, trace

MODEL = "model.xml"
# In float32, as the other formats; OpenVINO would choose bfloat16 where the machine has it.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINOExporter(Exporter):
    """Writes OpenVINO's format, with the preprocessing in the graph."""

    requires = ("openvino",)
    extra = "openvino"

    def write(self, source: Source, path: Path) -> dict[str, Any]:
        """Trace the network, convert the graph, and write it. See `Exporter.write`.

        OpenVINO 2026.4 reads no condition in a graph of torch, so that is traced without one.
        """
        library, graph = import_openvino(), trace(source, branching=False)
        what = f"OpenVINO cannot convert {source.model.backbone}"
        with quiet(), conversion_errors(what, "--format onnx needs another library"):
            converted = library.convert_model(graph.program)
        converted.inputs[0].get_tensor().set_names({INPUT})
        for output, name in zip(converted.outputs, graph.outputs, strict=True):
            output.get_tensor().set_names({name})
        converted.set_rt_info(canonical_json(source.description), ["zoo"])
        classes = json.dumps(list(source.description["classes"]), ensure_ascii=False)
        converted.set_rt_info(classes, ["classes"])
        path.mkdir()
        library.save_model(converted, path / MODEL, compress_to_fp16=False)
        return {
            "any_batch": graph.any_batch,
            "outputs": list(graph.outputs),
            "notes": [f"OpenVINO {library.__version__.partition('-')[0]}, {graph.describe()}"],
        }

    def load(self, source: Source, path: Path) -> Run:
        """Run it in OpenVINO on the CPU. See `Exporter.load`."""
        what = f"OpenVINO cannot run {source.model.backbone}"
        with conversion_errors(what, "--format onnx needs another library"):
            compiled = core().compile_model(core().read_model(path / MODEL), "CPU", SETTINGS)
        names = [next(iter(each.get_names())) for each in compiled.outputs]

        def run(images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
            results = compiled([images])
            return {name: np.array(results[index]) for index, name in enumerate(names)}

        return run
