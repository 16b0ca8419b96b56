"""Train a parameter, with a checkpoint after each epoch, for the injector of crashes.

Usage: python checkpoint_writer.py FOLDER [--keep N] [--in-place]

Each start goes on from the newest checkpoint in FOLDER, and prints its epoch. The last writes
`result.json`. With `--in-place`, checkpoints are written as torch's tutorials do it, which the
injector has to find.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from zoo.data.schema import Schema
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.signals import Interrupts
from zoo.engine.training.checkpoints import Cadence, Checkpoints, newest_checkpoint
from zoo.engine.training.state import TrainState
from zoo.files import canonical_json, write_bytes
from zoo.spec import Head, Preprocess
from zoo.tasks.classification.task import ImageClassification

EPOCHS = 3
TASK = ImageClassification()
CPU = torch.device("cpu")


def new_network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    return Network(module, [Head("1")], Preprocess(size=2), CPU, "fp32", TASK)


def train_epoch(network: Network, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.randn(4, 3, 2, 2)
    network.module(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def train(folder: Path, keep: int) -> None:
    network = new_network()
    state = TrainState(4, trained=set(network.module.state_dict()))
    state.optimizer = torch.optim.SGD(network.module.parameters(), 0.1, momentum=0.9)
    snapshot = newest_checkpoint(folder, partial(print, file=sys.stderr))
    if snapshot is not None:
        snapshot.restore(state, network, TASK.metric(Schema(("a", "b")), CPU))
        snapshot.restore_optimizer(state.optimizer)
        snapshot.restore_generators(CPU)
    print(f"resumed from epoch {state.epoch}")
    with Interrupts() as interrupts:
        interrupts.deferring = True
        cadence = Cadence(every=0, keep=keep)
        best = partial(write_bytes, folder / "best", b"model")
        checkpoints = Checkpoints(folder, {}, state, network, cadence, interrupts, best, 0.0)
        while state.epoch < EPOCHS:
            train_epoch(network, state.optimizer)
            state.epoch += 1
            state.best.updates += 1
            checkpoints.after_epoch()
    values = [tensor.tolist() for tensor in network.module.state_dict().values()]
    write_bytes(folder / "result.json", canonical_json(values).encode())


def train_in_place(folder: Path) -> None:
    network = new_network()
    optimizer = torch.optim.SGD(network.module.parameters(), 0.1, momentum=0.9)
    folder.mkdir(exist_ok=True)
    path, epoch = folder / "checkpoint.pt", 0
    if path.exists():
        epoch, module, state, generator = torch.load(path, weights_only=True)
        network.module.load_state_dict(module)
        optimizer.load_state_dict(state)
        torch.set_rng_state(generator)
    print(f"resumed from epoch {epoch}")
    while epoch < EPOCHS:
        train_epoch(network, optimizer)
        epoch += 1
        parts = network.module.state_dict(), optimizer.state_dict(), torch.get_rng_state()
        torch.save((epoch, *parts), path)
    values = [tensor.tolist() for tensor in network.module.state_dict().values()]
    (folder / "result.json").write_text(json.dumps(values))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", type=int, default=1)
    parser.add_argument("--in-place", action="store_true")
    given = parser.parse_args(arguments)
    if given.in_place:
        train_in_place(given.folder)
    else:
        train(given.folder, given.keep)


if __name__ == "__main__":
    main(sys.argv[1:])
