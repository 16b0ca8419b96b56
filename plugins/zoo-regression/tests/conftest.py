"""Drawn discs whose brightness and position are the numbers, and commands with a network."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageDraw

NETWORK = """
import zoo

@zoo.hookimpl
def zoo_register_backbones():
    small = zoo.Preprocess(size=32, resize=32)
    yield zoo.Backbone("tiny", "discnet:build", (zoo.Head("fc"),), small, task="image-regression")

def build(weights=None, num_classes=7):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            first, second = nn.Conv2d(3, 16, 5, 4), nn.Conv2d(16, 16, 3, 2)
            self.body = nn.Sequential(
                first, nn.BatchNorm2d(16), nn.ReLU(), second, nn.ReLU(), nn.Flatten()
            )
            self.fc = nn.Linear(144, num_classes)

        def forward(self, images):
            return self.fc(self.body(images))

    return Net()
"""


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 120 discs, their brightness in tenths and position in pixels, and `discnet.py`."""
    folder = tmp_path_factory.mktemp("discs")
    random = Random(0)
    with (folder / "discs.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "brightness", "x"])
        for number in range(120):
            brightness, x = random.randrange(40, 256), random.randrange(8, 24)
            image = Image.new("RGB", (32, 32))
            ImageDraw.Draw(image).ellipse((x - 6, 10, x + 6, 22), fill=(brightness,) * 3)
            image.save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", brightness / 10, x])
    (folder / "discnet.py").write_text(NETWORK)
    return folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard")


@pytest.fixture
def run(discs: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command, with the network, in the folder of the discs."""

    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zoo", *arguments, "--plugin", "discnet.py"]
        return subprocess.run(command, capture_output=True, text=True, cwd=discs, timeout=300)

    return run_command
