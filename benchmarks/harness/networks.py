"""The networks of the benchmarks, built by their libraries without zoo."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = 10
BATCH = 32
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Network:
    """A network, and its published preprocessing.

    Args:
        library: `torchvision` or `timm`.
        name: in the library.
        head: module path of its last layer.
        resize: the shorter side before the crop of 224.
        interpolation: as torchvision names it.
        mean: of each channel.
        std: of each channel.
        installed: whether its weights are installed with the dev group; otherwise all trainings
            start from the same random weights.
    """

    library: str
    name: str
    head: str
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    installed: bool = False


NETWORKS = {
    "resnet18": Network("torchvision", "resnet18", "fc", 256, "bilinear", *IMAGENET),
    "vit_tiny_patch16_224": Network(
        "timm", "vit_tiny_patch16_224", "head", 248, "bicubic", (0.5,) * 3, (0.5,) * 3
    ),
    "lite0": Network(
        "timm",
        "tf_efficientnet_lite0",
        "classifier",
        256,
        "bicubic",
        (127 / 255,) * 3,
        (128 / 255,) * 3,
        installed=True,
    ),
}


def build(network: Network, classes: int = 1000) -> nn.Module:
    """Build a network with random weights."""
    if network.library == "timm":
        import timm

        model: nn.Module = timm.create_model(network.name, num_classes=classes)
        return model
    from torchvision import models

    model = models.get_model(network.name, num_classes=classes)
    return model


def build_with_new_head(network: Network, weights: Path) -> nn.Module:
    """Build a network with weights for 1,000 classes, and replace its last layer."""
    from safetensors.torch import load_file
    from torch import nn

    model = build(network)
    model.load_state_dict(load_file(weights))
    head = model.get_submodule(network.head)
    assert isinstance(head, nn.Linear)
    setattr(model, network.head, nn.Linear(head.in_features, CLASSES))
    return model


def evaluation_transform(network: Network) -> Callable[[Any], torch.Tensor]:
    """Return torchvision's transform for evaluation: resize, crop, normalize."""
    from torchvision import transforms

    compose: Callable[[Any], torch.Tensor] = transforms.Compose(
        [
            transforms.Resize(network.resize, transforms.InterpolationMode(network.interpolation)),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    return compose


def choose_device() -> torch.device:
    """Return the GPU if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save(model: nn.Module, path: Path) -> None:
    """Write the state dict to a safetensors file."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, path
    )


def parse_options(description: str | None) -> argparse.Namespace:
    """Parse the command line that all training programs share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument(
        "--weights", type=Path, required=True, help="a .safetensors file for 1,000 classes"
    )
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()
