"""The formats that networks are exported to; each is imported only to export."""

from collections.abc import Iterator

from zoo.hookspecs import hookimpl
from zoo.spec import ExportFormat


@hookimpl
def zoo_register_formats() -> Iterator[ExportFormat]:
    """Register the built-in formats."""
    yield ExportFormat(
        "onnx",
        "one file for ONNX Runtime and others, with the preprocessing",
        target="zoo.inference.export.onnx:ONNXExporter",
    )
    yield ExportFormat(
        "timm",
        "a folder in timm's hub layout, for timm and transformers",
        target="zoo.inference.export.timm:TimmExporter",
    )
    yield ExportFormat(
        "openvino",
        "a folder for OpenVINO, with the preprocessing",
        target="zoo.inference.export.openvino:OpenVINOExporter",
    )
    yield ExportFormat(
        "pt2",
        "one file of torch.export, with the preprocessing",
        target="zoo.inference.export.pt2:PT2Exporter",
    )
