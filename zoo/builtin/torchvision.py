"""torchvision's 80 classification and 6 segmentation networks and their published weights.

torchvision's metadata of its weights is in `torchvision.json`, written from the library by
`python -m zoo.builtin.torchvision_build`, so that neither torch nor torchvision is imported here.
What the library does not state, such as the paths of the heads, is stated below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from zoo.builtin.measured import read_measured, with_widths
from zoo.builtin.tasks import SEMANTIC_SEGMENTATION
from zoo.hookspecs import hookimpl
from zoo.spec import IMAGE_CLASSIFICATION, Backbone, Head, Preprocess, Weights

BUILD = "zoo.builtin.torchvision_build"
DATA = Path(__file__).with_suffix(".json")

Stated = TypeVar("Stated")

# 0.5 is the weight that trained these weights: references/segmentation/train.py of torchvision.
DENSE = (
    Head("classifier[4]", output="out"),
    Head("aux_classifier[4]", role="aux", loss_weight=0.5, output="aux"),
)

# By the beginning of the name; no beginning is another's.
HEADS: Mapping[str, tuple[Head, ...]] = {
    "alexnet": (Head("classifier[6]"),),
    "convnext_": (Head("classifier[2]"),),
    "deeplabv3_": DENSE,
    "densenet": (Head("classifier"),),
    "efficientnet_": (Head("classifier[1]"),),
    "fcn_": DENSE,
    # "the losses of the auxiliary classifiers were weighted by 0.3": Szegedy et al., Going Deeper
    # with Convolutions, section 5, arXiv 1409.4842.
    "googlenet": (
        Head("fc", output="logits"),
        Head("aux1.fc2", role="aux", loss_weight=0.3, output="aux_logits1"),
        Head("aux2.fc2", role="aux", loss_weight=0.3, output="aux_logits2"),
    ),
    # Szegedy et al., Rethinking the Inception Architecture, arXiv 1512.00567, leave the weight
    # open; 0.4 is what the authors' own training takes (inception_v3 in tensorflow/models, slim).
    "inception_v3": (
        Head("fc", output="logits"),
        Head("AuxLogits.fc", role="aux", loss_weight=0.4, output="aux_logits"),
    ),
    # Their sum is the output.
    "lraspp_": (Head("classifier.low_classifier"), Head("classifier.high_classifier")),
    "maxvit_": (Head("classifier[5]"),),
    "mnasnet": (Head("classifier[1]"),),
    "mobilenet_v2": (Head("classifier[1]"),),
    "mobilenet_v3_": (Head("classifier[3]"),),
    "regnet_": (Head("fc"),),
    "resnet": (Head("fc"),),
    "resnext": (Head("fc"),),
    "shufflenet_": (Head("fc"),),
    # A 1x1 convolution; ReLU and pooling come after it.
    "squeezenet": (Head("classifier[1]"),),
    "swin_": (Head("head"),),
    "vgg": (Head("classifier[6]"),),
    "vit_": (Head("heads.head"),),
    "wide_resnet": (Head("fc"),),
}

# The published weights contain the auxiliary heads, so the network always has them. `init_weights`
# left open warns of a change to come; False is what it will be, and what torchvision gives with
# weights.
AUXILIARY: Mapping[str, Any] = {"aux_logits": True, "init_weights": False}
# Without it torchvision downloads the weights of the classifier inside.
BARE: Mapping[str, Any] = {"weights_backbone": None}
KWARGS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": AUXILIARY,
    "inception_v3": AUXILIARY,
    "fcn_": {**BARE, "aux_loss": True},
    "deeplabv3_": {**BARE, "aux_loss": True},
    "lraspp_": BARE,
}

EXCEPTIONS: Mapping[str, Mapping[str, str]] = {
    "mnasnet": {
        "library_loads_it": "torchvision's MNASNet needs a version that tensor files do not carry"
    }
}

DENSE_OUTPUT = ("deeplabv3_", "fcn_", "lraspp_")
FIXED_SIZE = ("maxvit_", "vit_")
IMAGE_SIZE = "image_size"


@hookimpl
def zoo_register_backbones() -> Iterator[Backbone]:
    """Register torchvision's classification and segmentation networks."""
    published = json.loads(DATA.read_text(encoding="utf-8"))
    measured = read_measured("torchvision")
    for name, rows in published["backbones"].items():
        yield _backbone(name, rows, measured.get(name, {}))


def _backbone(name: str, rows: list[dict[str, Any]], measured: Mapping[str, Any]) -> Backbone:
    preprocesses = [Preprocess(**row["preprocess"]) for row in rows]
    preprocess = preprocesses[0]
    kwargs = {"name": name, **_by_prefix(KWARGS, name, {})}
    image_size = IMAGE_SIZE if name.startswith("vit_") else None
    if image_size:
        # Without weights too it must have the size in its description: the default weights of
        # vit_h_14 have 518 pixels, and torchvision's builder makes it for 224 by default.
        kwargs[image_size] = preprocess.height
    # 1 is torchvision's way of not setting a limit.
    min_size = rows[0]["min_size"] if rows[0]["min_size"] > 1 else None
    return Backbone(
        name=name,
        builder=f"{BUILD}:build",
        heads=with_widths(_by_prefix(HEADS, name, ()), measured),
        preprocess=preprocess,
        weights=tuple(map(_weights, rows, preprocesses)),
        kwargs=kwargs,
        task=SEMANTIC_SEGMENTATION if name.startswith(DENSE_OUTPUT) else IMAGE_CLASSIFICATION,
        params=measured.get("params"),
        min_size=min_size,
        fixed_size=name.startswith(FIXED_SIZE),
        image_size=image_size,
        exceptions=_by_prefix(EXCEPTIONS, name, {}),
    )


def _by_prefix(stated: Mapping[str, Stated], name: str, otherwise: Stated) -> Stated:
    """Return the value of the first prefix of the name, else `otherwise`."""
    return next((value for prefix, value in stated.items() if name.startswith(prefix)), otherwise)


def _weights(row: Mapping[str, Any], preprocess: Preprocess) -> Weights:
    features_only = row.get("features_only", False)
    return Weights(
        tag=row["tag"],
        url=row["url"],
        license=row["license"],
        preprocess=preprocess,
        num_classes=0 if features_only else row.get("num_classes", 1000),
        classes=None if features_only else f"{BUILD}:{row.get('classes', 'imagenet_classes')}",
        metrics=row["metrics"],
        kwargs=row.get("kwargs", {}),
        convert=f"{BUILD}:convert",
        features_only=features_only,
        names=tuple(row["names"]),
    )
