"""Tiny backbones in installed plugins, and a small folder of real images."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import zoo.data

TINY = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone(
            name="tinynet",
            builder="plugin_tiny:build",
            heads=(
                zoo.Head("head.fc", output=0),
                zoo.Head("aux", role="aux", loss_weight=0.5, output=1),
            ),
            preprocess=zoo.Preprocess(size=32, resize=36),
        )

    def build(weights=None):
        from torch import nn

        class Tinynet(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
                self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
                self.drop = nn.Dropout(0.2)
                self.head = nn.Module()
                self.head.fc = nn.Linear(16, 7)
                self.aux = nn.Linear(8, 7)

            def forward(self, x):
                x = self.stem(x)
                middle = x.mean((2, 3))
                logits = self.head.fc(self.drop(self.body(x).mean((2, 3))))
                return (logits, self.aux(middle)) if self.training else logits

        return Tinynet()
"""


@pytest.fixture
def tinynet(install) -> str:
    """Install a plugin with a tiny backbone that has an auxiliary head."""
    install("tiny", TINY)
    return "tiny/tinynet"


PLAIN = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("plainnet", "plugin_plain:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        from torch import nn

        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU())
                self.never = nn.Linear(8, 8)
                self.fc = nn.Linear(8, 7)

            def forward(self, x):
                return self.fc(self.body(x).mean((2, 3)))

        return Plain()
"""


@pytest.fixture
def plainnet(install) -> str:
    """Install a plugin with a network without batch norm and with an unused layer."""
    install("plain", PLAIN)
    return "plain/plainnet"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Iterator[Path]:
    """Three classes of the embedded set: 8 train, 4 val, 4 test images each; do not modify."""
    embedded = Path(next(iter(zoo.data.__path__))) / "clipart10"
    root = tmp_path_factory.mktemp("image_folder")
    for name in ("flag", "mammal", "playing_card"):
        train = sorted((embedded / "train" / name).iterdir())
        val = sorted((embedded / "val" / name).iterdir())
        for split, chosen in (("train", train[:8]), ("val", val[:4]), ("test", val[4:8])):
            folder = root / split / name
            folder.mkdir(parents=True)
            for path in chosen:
                shutil.copyfile(path, folder / path.name)
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    yield root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written


ODD = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        for name, heads in (
            ("softnet", (zoo.Head("fc"),)),
            ("left_behind", (zoo.Head("fc"),)),
        ):
            yield zoo.Backbone(name, f"plugin_odd:{name}", heads, small)
        yield zoo.Backbone(
            "anynet", "plugin_odd:anynet", (zoo.Head("fc"),), small, in_chans="channels"
        )

    def make(after=None, channels=3, aux=False):
        from torch import nn

        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                first = nn.Conv2d(channels, 8, 3, 2)
                self.body = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU())
                self.fc = nn.Linear(8, 7)
                self.aux = nn.Linear(8, 7) if aux else None

            def forward(self, x):
                x = self.body(x).mean((2, 3))
                logits = self.fc(x) if after is None else after(self.fc(x))
                return (logits, self.aux(x)) if aux and self.training else logits

        return Odd()

    def softnet(weights=None):
        return make(after=lambda logits: logits.softmax(1))

    def left_behind(weights=None):
        return make(aux=True)

    def anynet(weights=None, channels=3):
        return make(channels=channels)
"""


@pytest.fixture
def odd(install) -> None:
    """Install three unusual networks.

    `softnet` ends in a softmax, `left_behind` has an auxiliary head that its adapter does not
    list, and `anynet` takes any number of channels.
    """
    install("odd", ODD)


FAILING_FAMILY = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Family("zoo-registry", "plugin_fam:enumerate_backbones")

    def enumerate_backbones():
        raise RuntimeError("the library is of another time")
"""


def pooled(outputs: int) -> str:
    """Return the source of a builder: a linear layer on the means of the channels."""
    return f"""
    def build(weights=None):
        from torch import nn

        class Pooled(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, {outputs})

            def forward(self, x):
                return self.fc(x.mean((2, 3)))

        return Pooled()
"""


def save_untrained(name: str, path: Path, classes: Sequence[str]) -> Path:
    """Write a model file of a network with random weights, and return its path."""
    import torch

    torch.manual_seed(0)
    return zoo.save(zoo.get(name).build(classes=len(classes)), path, classes)


def train_probe(name: str, data: Path, out: Path) -> Path:
    """Train the head of a network to its optimum in float32, and return the run folder."""
    options = {"weights": "none", "recipe": "probe", "precision": "fp32", "device": "cpu"}
    return zoo.finetune(name, data=data, out=out, **options).path
