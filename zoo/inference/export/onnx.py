"""ONNX: one file with network and preprocessing, checked in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import UsageError
from zoo.files import canonical_json
from zoo.inference.export.exporter import Exporter, Run, Source, conversion_errors
from zoo.inference.export.graph import INPUT, Graph, quiet, trace

# A file is one protocol buffer, which has no more bytes.
LARGEST = 2**31 - 2**20
# Of errors only.
SEVERITY = 3


class ONNXExporter(Exporter):
    """Writes ONNX files by torch's exporter.

    Their metadata have the key `zoo`, JSON of the whole description, and `classes`, JSON of the
    class names, `license`, `sha256` of the model file, and `input_size`, height and width of the
    network's own input.
    """

    suffix = ".onnx"
    requires = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"

    def write(self, source: Source, path: Path) -> dict[str, Any]:
        """Trace the network, convert the graph, and write it. See `Exporter.write`."""
        size = sum(each.nbytes for each in source.model.module.state_dict().values())
        if size > LARGEST:
            message = f"{source.model.backbone} has {size / 2**30:.1f} GiB of weights"
            raise UsageError(message, "one ONNX file has less than 2; use --format pt2")
        graph = trace(source)
        converted = convert(source, graph)
        _describe(converted.model, source)
        converted.save(path, external_data=False)
        opsets = converted.model.opset_imports
        return {
            "opset": opsets[""],
            "any_batch": graph.any_batch,
            "outputs": list(graph.outputs),
            "notes": [f"opset {opsets['']}, {graph.describe()}"],
        }

    def load(self, source: Source, path: Path) -> Run:
        """Run it in ONNX Runtime. See `Exporter.load`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = SEVERITY
        # Threads that wait for work actively would slow down the network they are compared with.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        what = f"ONNX Runtime cannot run {source.model.backbone}"
        hint = "--format pt2 runs in torch"
        with conversion_errors(what, hint):
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        names = [each.name for each in session.get_outputs()]

        def run(images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
            with conversion_errors(what, hint):
                return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

        return run


def convert(source: Source, graph: Graph) -> Any:
    """Convert a graph by torch's exporter."""
    what = f"torch cannot convert {source.model.backbone} to ONNX"
    with quiet(), conversion_errors(what, "--format pt2 needs no conversion"):
        return torch.onnx.export(
            graph.program,
            (),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(graph.outputs),
            verbose=False,
        )


def _describe(model: Any, source: Source) -> None:
    """Replace the exporter's notes, which name the files of this machine, by the description."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *_initializers(graph)):
            value.metadata_props.clear()
        graph.metadata_props.clear()
    model.metadata_props.clear()
    description = source.description
    size = description["preprocess"]["size"]
    facts = {
        "zoo": canonical_json(description),
        "classes": json.dumps(list(description["classes"]), ensure_ascii=False),
        "license": description["license"],
        "sha256": description["sha256"],
        "input_size": json.dumps(list(size)),
    }
    model.metadata_props.update({key: text for key, text in facts.items() if text is not None})
    model.graph.name = source.name


def _initializers(graph: Any) -> Iterator[Any]:
    yield from getattr(graph, "initializers", {}).values()
