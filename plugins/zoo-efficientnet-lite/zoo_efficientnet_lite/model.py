"""Builder of the networks: timm's, with TensorFlow's padding and batch norm."""

from typing import Any

import timm
from torch import nn


def build(weights: str | None = None, *, number: int, **kwargs: Any) -> nn.Module:
    """Build EfficientNet-Lite 0, 1 or 2, by default for the 1,000 classes of ImageNet.

    Args:
        weights: unused; zoo loads them.
        number: 0, 1 or 2.
        kwargs: further arguments of `timm.create_model`.
    """
    return timm.create_model(f"tf_efficientnet_lite{number}", **kwargs)
