"""A folder in timm's hub layout: `timm.create_model("local-dir:DIR", pretrained=True)` loads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from zoo.data.exportable import place
from zoo.data.images import noise
from zoo.errors import UsageError, one_line
from zoo.files import StagedFolder
from zoo.inference.export.exporter import Exporter, Run, Source, conversion_errors
from zoo.inference.predictor import Predictor
from zoo.models.provenance import provenance_of
from zoo.spec import IMAGE_CLASSIFICATION, Preprocess
from zoo.tasks.base import Outputs
from zoo.tensorfile import tensor_bytes

# Sums in another order; both are the same operations of torch.
TOLERANCE = 1e-4
HINT = "--format onnx needs no network of timm's"


class TimmExporter(Exporter):
    """Writes `config.json`, `model.safetensors` and a model card.

    The network is one of timm's own, or one that timm has under the same name with the same
    tensors, which must compute equal logits.
    """

    def write(self, source: Source, path: Path) -> dict[str, Any]:
        """Write the folder. See `Exporter.write`."""
        described = _describe(source)
        path.mkdir()
        folder = StagedFolder(path)
        tensors = source.model.module.state_dict()
        folder.write("model.safetensors", tensor_bytes(tensors, {"format": "pt"}))
        for name, content in described.files.items():
            folder.write(name, content)
        architecture, difference = described.architecture, described.difference
        notes = [f"timm's {architecture}, logits differ by at most {difference:.2g}"]
        if (temperature := source.description["temperature"]) is not None:
            notes.append(f"its softmax is without the temperature {temperature:.4g} of the model")
        return {"architecture": architecture, "logits_difference": difference, "notes": notes}

    def load(self, source: Source, path: Path) -> Run:
        """Load it by timm, with timm's transform. See `Exporter.load`."""
        what = f"timm cannot load what was written of {source.model.backbone}"
        with conversion_errors(what, HINT):
            network = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
            transform = create_transform(**resolve_data_config({}, model=network))
        model, temperature = source.model, source.description["temperature"] or 1.0

        def run(images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
            pixels = torch.stack([transform(Image.fromarray(each)) for each in images])
            with torch.inference_mode():
                placement = place(images.shape[1], images.shape[2], model.preprocess)
                outputs = Outputs(network(pixels) / temperature)
                values = model.network.task.export_outputs(outputs, placement)
            return {name: each.numpy() for name, each in values.items()}

        return run


class _Described(NamedTuple):
    """What a repository has beside the tensors, and how it was proven."""

    architecture: str
    difference: float
    files: dict[str, bytes]


def hub_files(source: Source) -> dict[str, bytes]:
    """Return the files of a repository beside the tensors, by name.

    Raises:
        UsageError: timm has not the network; states why.
    """
    return _describe(source).files


def _describe(source: Source) -> _Described:
    model = source.model
    if model.task != IMAGE_CLASSIFICATION:
        message = f"--format timm is for {IMAGE_CLASSIFICATION}, and this is {model.task}"
        raise UsageError(message, "--format onnx takes other tasks")
    architecture, arguments = _architecture(model)
    twin = _twin(model, architecture, arguments)
    difference = _logits_difference(model, twin)
    config = _config(source, architecture, arguments, twin)
    files = {
        "config.json": json.dumps(config, indent=2, ensure_ascii=False).encode(),
        "README.md": model_card(source, architecture).encode(),
    }
    return _Described(architecture, difference, files)


def _architecture(model: Predictor) -> tuple[str, dict[str, Any]]:
    """Return the name of timm's network, and its arguments.

    Raises:
        UsageError: timm has none of the backbone's name.
    """
    made = provenance_of(model.module)
    arguments = dict(made.kwargs)
    own = arguments.pop("name", None)
    if isinstance(own, str) and timm.is_model(own):
        return own, {key: value for key, value in arguments.items() if key != "num_classes"}
    name = model.backbone.rpartition("/")[2]
    if not timm.is_model(name):
        raise UsageError(f"timm has no network named {name}, as {model.backbone} is", HINT)
    return name, {}


def _twin(model: Predictor, architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return timm's network with the tensors of a model.

    Raises:
        UsageError: it has other tensors.
    """
    try:
        network: nn.Module = timm.create_model(
            architecture, num_classes=len(model.classes), **arguments
        )
        network.load_state_dict(model.module.state_dict())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)
        reason = reason if len(reason) <= 200 else f"{reason[:197]}..."
        message = f"timm's {architecture} does not have the tensors of {model.backbone}: {reason}"
        raise UsageError(message, HINT) from error
    return network.eval()


def _logits_difference(model: Predictor, twin: nn.Module) -> float:
    """Return the largest difference of logits on noise, relative to the largest logit.

    Raises:
        UsageError: they are not equal.
    """
    images = noise(2, model.preprocess, seed=0)
    with torch.inference_mode():
        outputs = model.network.forward(images)
        inputs = _normalized(images, model.preprocess)
        logits: Tensor = twin(inputs)
    largest = max(1.0, float(outputs.main.abs().max()))
    difference = float((outputs.main - logits).abs().max()) / largest
    if not difference <= TOLERANCE:
        message = f"timm's network computes other logits than {model.backbone}"
        raise UsageError(f"{message}: they differ by {difference:.2g}", HINT)
    return difference


def _normalized(images: Tensor, preprocess: Preprocess) -> Tensor:
    from zoo.data.transforms import normalize

    return normalize(images, preprocess) if images.dtype == torch.uint8 else images


def _config(
    source: Source, architecture: str, arguments: Mapping[str, Any], network: nn.Module
) -> dict[str, Any]:
    """Return the content of `config.json`."""
    model, known = source.model, network.pretrained_cfg
    assert isinstance(known, Mapping)
    preprocess, count = model.preprocess, len(model.classes)
    cfg = {
        "tag": "zoo",
        "custom_load": False,
        "input_size": [preprocess.channels, preprocess.height, preprocess.width],
        "fixed_input_size": bool(known.get("fixed_input_size", False)),
        "interpolation": preprocess.interpolation,
        "crop_pct": _crop_fraction(preprocess),
        "crop_mode": preprocess.crop,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": count,
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
        "license": source.description["license"],
    }
    config = {
        "architecture": architecture,
        "num_classes": count,
        "num_features": int(network.num_features),  # type: ignore[arg-type]
        "label_names": list(model.classes),
        "model_args": dict(arguments),
        "pretrained_cfg": {key: value for key, value in cfg.items() if value is not None},
    }
    if not arguments:
        del config["model_args"]
    return config


def _crop_fraction(preprocess: Preprocess) -> float:
    """Return the fraction that gives timm, which divides and rounds down, the same resize."""
    side, resize = min(preprocess.height, preprocess.width), preprocess.resize
    assert resize is not None
    fraction = side / resize
    while math.floor(side / fraction) < resize:
        fraction = math.nextafter(fraction, 0)
    return fraction


CARD = """\
---
tags:
- image-classification
- zoo
{header}---
# {name}

A `{backbone}` with the classes {classes}, trained with zoo.

```sh
zoo predict hf:OWNER/NAME image.jpg
```
"""
TIMM = """
```python
import timm

model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
logits = model(transform(image)[None])
```

`label_names` in `config.json` are the class names in the order of the logits.
"""


def model_card(source: Source, architecture: str | None) -> str:
    """Return a model card.

    Args:
        source: the network.
        architecture: name of timm's network; None where timm has not the network.
    """
    license, names = source.description["license"], source.model.classes
    header = ["library_name: timm"] if architecture else []
    header += [f"license: {json.dumps(license.lower())}"] if license else []
    card = CARD.format(
        header="".join(f"{line}\n" for line in header),
        name=source.name,
        backbone=source.model.backbone,
        classes=", ".join(names[:20]) + (f" and {len(names) - 20:,} more" * (len(names) > 20)),
    )
    return card + (TIMM if architecture else "")
