"""Fixtures of trainings: their events, and an interrupted one."""

import sys
from pathlib import Path

import pytest

import zoo
from tests.engine.run.interrupting import InterruptingLoss
from tests.engine.run.observer_source import observer


@pytest.fixture
def watcher(install):
    """Install a plugin that records events, and return a function that returns them."""
    install("watcher", observer("seen.append(event)", "seen = []"))

    def seen() -> list:
        return sys.modules["plugin_watcher"].seen

    return seen


@pytest.fixture
def interrupted(tinynet, image_folder):
    """A run folder with two checkpoints of an interrupted training; returns its options too."""
    options = {
        "weights": "none",
        "device": "cpu",
        "lr": 0.01,
        "batch_size": 8,
        "train": "all",
        "data": image_folder,
        "epochs": 3,
    }
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(
            tinynet,
            **options,
            out="run",
            keep=2,
            checkpoint_every=0,
            loss=InterruptingLoss(5),
        )
    names = sorted(path.name for path in Path("run/checkpoints").iterdir())
    assert len(names) == 3
    return Path("run"), options
