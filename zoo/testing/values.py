"""Promises about numbers: what a training changes and what not, and what a model file gives back.

Every training here goes through zoo's own loop, on a few pictures of noise, from random weights
whose batch norm statistics were settled on one batch.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.images import noise
from zoo.data.schema import Schema
from zoo.engine.features.hooks import HeadHooks
from zoo.engine.plan.plan import Phase
from zoo.engine.run.artifacts import save_module
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.loop import PhaseContext, run_phase
from zoo.engine.training.sources import ImageSource, PhaseData
from zoo.engine.training.state import TrainState
from zoo.inference.loading import load_model
from zoo.models.build import resolve_and_build
from zoo.models.freeze import freeze, inference_mode_of
from zoo.models.heads import resolve_head
from zoo.models.provenance import how_made
from zoo.options import Policy, Schedule
from zoo.spec import resolve_target
from zoo.testing.findings import Broken, NotApplicable
from zoo.testing.fresh import logits_of
from zoo.testing.subject import Subject

BATCH = 2
MOMENTUM, WEIGHT_DECAY = 0.9, 0.01


@dataclass
class Trial:
    """A short training, and what was noted before it.

    Args:
        network: as it was left.
        heads: dotted paths of the new heads.
        images: the batch that was looked at before.
        before: every parameter and buffer, by name.
        features: what entered each head in use, and in training.
        schema: of the data that it was trained on.
    """

    network: Network
    heads: list[str]
    images: Tensor
    before: dict[str, Tensor]
    features: dict[bool, dict[str, Tensor]]
    schema: Schema

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    def in_head(self, name: str) -> bool:
        """Whether a tensor belongs to a new head."""
        return any(name.startswith(f"{head}.") for head in self.heads)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer, those too that a state dict leaves out."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit by bit, NaN and all."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)


def _begin(subject: Subject, policy: str) -> Network:
    """Build a network on the settled weights, frozen by a policy."""
    weights = str(subject.settled)
    options = subject.small
    preprocess = options.apply(subject.backbone).preprocess
    outputs = subject.task.example_data(preprocess, BATCH, seed=2).schema.outputs
    model = resolve_and_build(subject.backbone, weights, outputs, seed=1, options=options)
    made = how_made(model)
    freeze(model, policy=policy)
    cpu = torch.device("cpu")
    return Network(model, made.backbone.heads, made.preprocess, cpu, "fp32", subject.task)


def _features(network: Network, heads: list[str], images: Tensor) -> dict[bool, dict[str, Tensor]]:
    """Return what enters each head, in use and in training."""
    seen = {}
    for training in (True, False):
        network.module.train(training)
        with torch.no_grad(), HeadHooks(network.module, heads) as hooks:
            network.forward(images, training)
        seen[training] = {path: entered.clone() for path, entered in hooks.inputs.items()}
    return seen


def _train(network: Network, policy: str, images: int, lr: float) -> Schema:
    """Train one epoch of zoo's own loop on images of noise, and return what their targets are."""
    opened = network.task.example_data(network.preprocess, images, seed=2)
    splits = opened.splits
    data = PhaseData(splits["train"], splits["val"], opened.schema, seed=3, batch_size=BATCH)
    transform = network.task.transform(network.preprocess)
    source = ImageSource(network, data, ImageReader(transform, network.device, BATCH))
    phase = Phase(
        policy, Policy(policy), 1, "sgd", lr, MOMENTUM, WEIGHT_DECAY, Schedule("constant"), False
    )
    context = PhaseContext(
        seed=3,
        names=[],
        progress=lambda batches, steps, text: batches,
        criterion=None,
        report=lambda event: None,
    )
    run_phase(phase, source, TrainState(BATCH), context)
    return opened.schema


def head_trial(subject: Subject) -> Trial:
    """Train the heads for three steps: two batches of two, and one of two and a single one."""
    if (known := subject.notes.get("head trial")) is not None:
        return known  # type: ignore[no-any-return]
    network = _begin(subject, "head")
    heads = [resolve_head(network.module, head.path) for head in network.heads]
    images = noise(BATCH, network.preprocess, seed=4)
    features = _features(network, heads, images)
    before = _tensors(network.module)
    schema = _train(network, "head", 3 * BATCH + 1, lr=0.01)
    trial = Trial(network, heads, images, before, features, schema)
    subject.notes["head trial"] = trial
    return trial


def frozen_stays_frozen(subject: Subject) -> str:
    """Train the heads, and compare every other tensor with what it was."""
    trial = head_trial(subject)
    after = _tensors(trial.module)
    outside = [name for name in trial.before if not trial.in_head(name)]
    changed = [name for name in outside if not _same(trial.before[name], after[name])]
    if changed:
        name = changed[0]
        was, is_ = trial.before[name].float(), after[name].float()
        moved = (was - is_).abs().max().item() if was.shape == is_.shape else float("nan")
        what = f"{len(changed)} of {len(outside)} tensors outside the heads changed"
        raise Broken(f"{what}: {name} by up to {moved:.3g}, {', '.join(changed[1:4])}")
    return f"{len(outside)} tensors outside the heads are bit-identical after 3 steps"


def new_heads_learn(subject: Subject) -> str:
    """Train the heads, and see whether all that is new moved by a gradient."""
    trial = head_trial(subject)
    new = {name: p for name, p in trial.module.named_parameters() if trial.in_head(name)}
    for name, parameter in new.items():
        if parameter.grad is None or not bool(parameter.grad.abs().max() > 0):
            raise Broken(f"no gradient reaches the new {name}")
        if _same(trial.before[name], parameter.detach()):
            raise Broken(f"the new {name} is what it was after 3 steps")
    others = [name for name, p in trial.module.named_parameters() if p.requires_grad]
    if set(others) != set(new):
        raise Broken(f"{len(others)} parameters train, and {len(new)} are new")
    return f"{len(new)} new parameters moved"


def frozen_answers_the_same(subject: Subject) -> str:
    """Compare what enters the heads before and after a training, in training and in use."""
    trial = head_trial(subject)
    after = _features(trial.network, trial.heads, trial.images)
    for path, entered in trial.features[False].items():
        if not _same(entered, trial.features[True][path]):
            apart = (entered - trial.features[True][path]).abs().max().item()
            raise Broken(f"what enters {path} differs by {apart:.3g} in training and in use")
    for training, when in ((False, "in use"), (True, "in training")):
        for path, entered in trial.features[training].items():
            if not _same(entered, after[training][path]):
                apart = (entered - after[training][path]).abs().max().item()
                raise Broken(f"{when} what enters {path} differs by {apart:.3g} after training")
    shapes = [f"{path} {tuple(f.shape)}" for path, f in trial.features[False].items()]
    return f"bit-identical: {', '.join(shapes)}"


def everything_has_a_gradient(subject: Subject) -> str:
    """Train every layer, the last batch being one picture too few for batch norm."""
    network = _begin(subject, "all")
    _train(network, "all", 2 * BATCH + 1, lr=1e-8)  # on random layers any gradient can come
    parameters = dict(network.module.named_parameters())
    none = [name for name, p in parameters.items() if p.requires_grad and p.grad is None]
    subject.notes["without gradient"] = none
    if none:
        what = f"{len(none)} of {len(parameters)} parameters get no gradient under all"
        raise Broken(f"{what}: {', '.join(none[:3])}")
    return f"{len(parameters)} parameters"


def _model_file(subject: Subject) -> tuple[Path, Trial]:
    trial = head_trial(subject)
    path = subject.folder / "model.safetensors"
    if not path.exists():
        save_module(trial.module, path, trial.schema, how_made(trial.module))
    return path, trial


def _logits(network: Network, images: Tensor) -> Tensor:
    with inference_mode_of(network.module):
        return network.forward(images).main


def _compare(what: str, expected: Tensor, found: Tensor) -> None:
    if not _same(expected, found):
        if expected.shape != found.shape:
            raise Broken(f"{what} gives logits {list(found.shape)}, not {list(expected.shape)}")
        apart, most = (expected - found).abs().max().item(), expected.abs().max().item()
        raise Broken(f"{what} gives other logits: {apart:.3g} apart, the largest being {most:.3g}")


def saved_and_loaded(subject: Subject) -> str:
    """Write a model file, load it again, and compare the logits."""
    path, trial = _model_file(subject)
    expected = _logits(trial.network, trial.images)
    loaded = load_model(path, subject.registry, device="cpu")
    if loaded.schema != trial.schema:
        raise Broken(f"the schema was {trial.schema} and is {loaded.schema}")
    _compare("the model file", expected, logits_of(loaded, trial.images))
    if subject.fresh is None:
        return "equal logits in this process"
    _compare("a fresh process", expected, subject.fresh(path, trial.images))
    return "equal logits in this process and in a fresh one"


def library_loads_it(subject: Subject) -> str:
    """Build the network with its library alone, and load the model file into it."""
    from safetensors.torch import load_file

    path, trial = _model_file(subject)
    builder = resolve_target(subject.backbone.builder, f"backbone {subject.backbone.id}")
    kwargs = {**how_made(trial.module).kwargs, "num_classes": trial.schema.outputs}
    if not _takes_classes(builder):
        raise NotApplicable("its builder takes no num_classes, so no network of 3 can be had of it")
    alone = builder(weights=None, **kwargs)
    try:
        alone.load_state_dict(load_file(path))
    except (RuntimeError, ValueError, KeyError) as error:
        raise Broken(f"its library does not load the file: {str(error)[:200]}") from error
    network = trial.network
    bare = Network(
        alone,
        network.heads,
        network.preprocess,
        network.device,
        network.precision,
        network.task,
    )
    _compare("its library alone", _logits(network, trial.images), _logits(bare, trial.images))
    return "equal logits without zoo"


def _takes_classes(builder: Any) -> bool:
    parameters = inspect.signature(builder).parameters.values()
    return any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)
