"""A plugin with small segmentation networks, and scenes with exact masks."""

from pathlib import Path

import pytest

from tests.tasks.segmentation.scenes import SHAPES, write_scenes

NETWORKS = """
    import zoo

    HEADS = (
        zoo.Head("classifier[4]", output="out"),
        zoo.Head("aux_classifier[4]", role="aux", loss_weight=0.5, output="aux"),
    )

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone(
            name="tinyfcn",
            builder="plugin_dense:fcn",
            heads=HEADS,
            preprocess=zoo.Preprocess(size=64, resize=64, crop="border"),
            task="semantic-segmentation",
        )
        yield zoo.Backbone(
            name="twohead",
            builder="plugin_dense:twohead",
            heads=(zoo.Head("classifier.low_classifier"), zoo.Head("classifier.high_classifier")),
            preprocess=zoo.Preprocess(size=64, resize=64, crop="border"),
            task="semantic-segmentation",
        )

    def block(inputs, outputs, stride=1):
        from torch import nn

        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    def fcn(weights=None, num_classes=21):
        from torch import nn
        from torchvision.models.segmentation.fcn import FCN, FCNHead

        class Body(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Sequential(block(3, 16, 2), block(16, 32, 2))
                self.second = nn.Sequential(block(32, 64, 2), block(64, 64), block(64, 64))

            def forward(self, x):
                middle = self.first(x)
                return {"aux": middle, "out": self.second(middle)}

        return FCN(Body(), FCNHead(64, num_classes), FCNHead(32, num_classes))

    def twohead(weights=None, num_classes=21):
        from torch import nn
        from torchvision.models.segmentation.lraspp import LRASPP

        class Body(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Sequential(block(3, 16, 2), block(16, 32, 2))
                self.second = block(32, 64, 2)

            def forward(self, x):
                low = self.first(x)
                return {"low": low, "high": self.second(low)}

        return LRASPP(Body(), 32, 64, num_classes, 32)
"""


@pytest.fixture
def tinyfcn(install) -> str:
    """Install a plugin with a small FCN and a small network of two main heads."""
    install("dense", NETWORKS)
    return "dense/tinyfcn"


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Twenty scenes, 96 x 72 pixels, with named classes."""
    folder = write_scenes(tmp_path_factory.mktemp("scenes"), 20, seed=1)
    (folder / "classes.txt").write_text("\n".join(SHAPES))
    return folder
