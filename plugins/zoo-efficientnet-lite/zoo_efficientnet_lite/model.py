"""The networks: timm's, whose padding and batch norm are TensorFlow's, as these weights need."""

from typing import Any

import timm
from torch import nn


def build(weights: str | None = None, *, number: int, **kwargs: Any) -> nn.Module:
    """Build EfficientNet-Lite 0, 1 or 2, by itself for the 1,000 classes of ImageNet.

    Args:
        weights: not used; zoo loads them.
        number: which of them.
        kwargs: more arguments for `timm.create_model`.
    """
    return timm.create_model(f"tf_efficientnet_lite{number}", **kwargs)
