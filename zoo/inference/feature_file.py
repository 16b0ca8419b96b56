"""Files of features: rows of float32, labels, and in the metadata what they were computed with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.engine.backends.choice import TORCH
from zoo.engine.features.fingerprint import MACHINE, network_facts
from zoo.files import canonical_json
from zoo.inference.predictor import Predictor
from zoo.records import to_dict


def describe_features(
    model: Predictor, head: str, batch: int, engine: str = TORCH
) -> dict[str, Any]:
    """Return what features are computed with, as metadata of their file.

    Args:
        model: that computes them.
        head: path of the head whose input they are.
        batch: images per forward pass.
        engine: that computes them.
    """
    facts = network_facts(model.network, batch, engine)
    return {
        "backbone": model.backbone,
        "preprocess": to_dict(model.preprocess),
        "precision": model.network.precision,
        "head": head,
        # Without the machine's: the shards of a data set may be computed on several.
        "settings": {name: value for name, value in facts.items() if name not in MACHINE},
    }


def write_rows(
    file: BinaryIO,
    shape: tuple[int, int],
    rows: Iterable[Tensor],
    labels: NDArray[np.int64] | None,
    metadata: Mapping[str, Any],
) -> None:
    """Write features as a safetensors file.

    Args:
        file: to write to.
        shape: number of images, and of features per image.
        rows: blocks of features, `[rows, width]` float32 on the CPU.
        labels: `[images]`; None without any.
        metadata: plain data, stored as the key `zoo`.
    """
    size = shape[0] * shape[1] * 4
    header: dict[str, Any] = {"__metadata__": {"zoo": canonical_json(metadata)}}
    header["features"] = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    if labels is not None:
        end = size + 8 * shape[0]
        header["labels"] = {"dtype": "I64", "shape": [shape[0]], "data_offsets": [size, end]}
    text = json.dumps(header, ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for block in rows:
        file.write(block.numpy().astype("<f4").tobytes())
    if labels is not None:
        file.write(labels.astype("<i8").tobytes())
