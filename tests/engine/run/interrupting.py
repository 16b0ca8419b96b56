"""Trainings that are interrupted in a step."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import zoo


class InterruptingLoss:
    """Cross-entropy that interrupts this process in some of its calls for training."""

    def __init__(self, *calls: int) -> None:
        self.calls = calls
        self.count = 0

    def __call__(self, logits, labels):
        if torch.is_grad_enabled():
            self.count += 1
            if self.count in self.calls:
                os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, labels)


def finetune_interrupted(backbone, calls, **options):
    """Train, interrupted after each number of calls of the loss, and resume until it is finished.

    Returns:
        The run, and the position of each checkpoint that it was resumed from.
    """
    points = []
    for number, call in enumerate(calls):
        start = {"name": backbone, **options} if not number else {"resume": options["out"]}
        with pytest.raises(KeyboardInterrupt):
            zoo.finetune(**start, loss=InterruptingLoss(call))
        (checkpoint,) = Path(options["out"]).glob("checkpoints/checkpoint-*")
        state = json.loads((checkpoint / "state.json").read_text())
        points.append((state["phase"], state["epoch"], state["step"]))
    return zoo.finetune(resume=options["out"], loss=InterruptingLoss()), points


def history(run):
    lines = (run.path / "history.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]
