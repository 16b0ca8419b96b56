"""Registration of the task, and of backbones for it."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import zoo

TASK = "image-regression"
NAMES = ("resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


@zoo.hookimpl
def zoo_register_tasks() -> Iterator[zoo.Task]:
    """Register image regression."""
    yield zoo.Task(TASK, "numbers for each image", "zoo_regression.task:ImageRegression")


@zoo.hookimpl(wrapper=True)
def zoo_register_backbones() -> Generator[None, Any, Any]:
    """Register some of torchvision's backbones for this task too, on the same weights."""
    results = yield
    bases = [item for items in results for item in items if item.source == "torchvision"]
    # A new owner; `extends` names the owner of the weights, so that they are downloaded once.
    owner = {"source": "", "plugin": "", "origin": ""}
    own = [replace(b, task=TASK, extends=b, **owner) for b in bases if b.name in NAMES]
    return [*results, own]
