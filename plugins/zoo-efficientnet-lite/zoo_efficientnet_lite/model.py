"""The networks: timm's, whose padding and batch norm are TensorFlow's, as these weights need."""

import timm
from torch import nn


def build(weights: str | None = None, *, number: int) -> nn.Module:
    """Build EfficientNet-Lite 0, 1 or 2 for the 1,000 classes of ImageNet.

    Args:
        weights: not used; zoo loads them.
        number: which of them.
    """
    return timm.create_model(f"tf_efficientnet_lite{number}")
