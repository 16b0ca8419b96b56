"""Checks of tensor values: frozen and trained parameters, features, and logits of a model file.

Every training uses zoo's own loop, on a few images of noise, from random weights with batch norm
statistics of one batch.
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
from zoo.errors import one_line
from zoo.inference.loading import load_model
from zoo.models.build import resolve_and_build
from zoo.models.freeze import freeze, inference_mode_of, select_modules
from zoo.models.heads import resolve_head
from zoo.models.provenance import provenance_of
from zoo.options import Policy, Schedule
from zoo.options.policy import HEAD
from zoo.spec import resolve_target
from zoo.testing.findings import CheckFailed, NotApplicable
from zoo.testing.fresh import logits_of
from zoo.testing.subject import Subject

BATCH = 2
MOMENTUM, WEIGHT_DECAY = 0.9, 0.01


@dataclass
class HeadTraining:
    """A short training of the heads, with tensors recorded before it.

    Args:
        network: after training.
        heads: module paths of the new heads.
        images: the batch that features were recorded for.
        before: every parameter and buffer before training, by name.
        features: inputs of the heads before training, by train mode and path.
        schema: of the training data.
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
        """Return whether a tensor belongs to a new head."""
        return any(name.startswith(f"{head}.") for head in self.heads)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer, including non-persistent ones."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are bit-identical, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)


def _build(subject: Subject, policy: str) -> Network:
    """Build a network with the calibrated weights, frozen by a policy."""
    weights = str(subject.calibrated)
    options = subject.small_input
    preprocess = options.apply(subject.backbone).preprocess
    outputs = subject.task.example_data(preprocess, BATCH, seed=2).schema.outputs
    model = resolve_and_build(subject.backbone, weights, outputs, seed=1, options=options)
    made = provenance_of(model)
    freeze(model, policy=policy)
    cpu = torch.device("cpu")
    return Network(model, made.backbone.heads, made.preprocess, cpu, "fp32", subject.task)


def _features(network: Network, heads: list[str], images: Tensor) -> dict[bool, dict[str, Tensor]]:
    """Return the inputs of each head, by train mode and path."""
    features = {}
    for training in (True, False):
        network.module.train(training)
        with torch.no_grad(), HeadHooks(network.module, heads) as hooks:
            network.forward(images, training)
        features[training] = {path: inputs.clone() for path, inputs in hooks.inputs.items()}
    return features


def _train(network: Network, policy: str, images: int, lr: float) -> Schema:
    """Train one epoch on images of noise, and return their schema."""
    example = network.task.example_data(network.preprocess, images, seed=2)
    splits = example.splits
    data = PhaseData(splits["train"], splits["val"], example.schema, seed=3, batch_size=BATCH)
    transform = network.task.transform(network.preprocess)
    source = ImageSource(network, data, ImageReader(transform, network.device, BATCH))
    phase = Phase(
        policy, Policy(policy), 1, "sgd", lr, MOMENTUM, WEIGHT_DECAY, Schedule("constant"), False
    )
    run_phase(phase, source, TrainState(BATCH), PhaseContext(seed=3, names=[]))
    return example.schema


def train_heads(subject: Subject) -> HeadTraining:
    """Train the heads for three steps, of 2, 2 and 3 images."""
    if (trained := subject.memo.get("heads")) is not None:
        return trained  # type: ignore[no-any-return]
    network = _build(subject, "head")
    heads = [resolve_head(network.module, head.path) for head in network.heads]
    images = noise(BATCH, network.preprocess, seed=4)
    features = _features(network, heads, images)
    before = _tensors(network.module)
    schema = _train(network, "head", 3 * BATCH + 1, lr=0.01)
    trained = HeadTraining(network, heads, images, before, features, schema)
    subject.memo["heads"] = trained
    return trained


def _run_in_train_mode(trained: HeadTraining) -> None:
    """Run a frozen network inside another, in parts, and its layers alone.

    Raises:
        CheckFailed: a frozen module changes to train mode.
    """
    module = trained.module
    for each in (nn.Sequential(module), *module.modules()):
        each.train()
    selection = select_modules(module, trained.network.heads, HEAD)
    names = {part: name or "the network" for name, part in module.named_modules()}
    for part, training in selection.modes(module):
        if part.training and not training:
            raise CheckFailed(f"{names[part]} is frozen, and in train mode after train()")
    images = trained.images.float() / 127.5 - 1
    with torch.no_grad():
        nn.Sequential(module)(images)
        if callable(forward_features := getattr(module, "forward_features", None)):
            forward_features(images)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer(torch.ones(BATCH, layer.num_features, 2, 2))


def frozen_stays_frozen(subject: Subject) -> str:
    """Train the heads, use the network in other ways, and compare every other tensor."""
    trained = train_heads(subject)
    _run_in_train_mode(trained)
    after = _tensors(trained.module)
    outside = [name for name in trained.before if not trained.in_head(name)]
    changed = [name for name in outside if not _same(trained.before[name], after[name])]
    if changed:
        name = changed[0]
        old, new = trained.before[name].float(), after[name].float()
        change = (old - new).abs().max().item() if old.shape == new.shape else float("nan")
        message = f"{len(changed)} of {len(outside)} tensors outside the heads changed"
        others = "".join(f", {other}" for other in changed[1:4])
        raise CheckFailed(f"{message}: {name} by up to {change:.3g}{others}")
    return f"{len(outside)} tensors outside the heads are bit-identical after 3 steps"


def new_heads_learn(subject: Subject) -> str:
    """Train the heads, and check gradient and change of every new parameter."""
    trained = train_heads(subject)
    new = {name: p for name, p in trained.module.named_parameters() if trained.in_head(name)}
    for name, parameter in new.items():
        if parameter.grad is None or not bool(parameter.grad.abs().max() > 0):
            raise CheckFailed(f"the new {name} has no gradient")
        if _same(trained.before[name], parameter.detach()):
            raise CheckFailed(f"the new {name} is unchanged after 3 steps")
    trainable = {name for name, p in trained.module.named_parameters() if p.requires_grad}
    if trainable != set(new):
        raise CheckFailed(f"{len(trainable)} parameters are trainable, {len(new)} are new")
    return f"{len(new)} new parameters changed"


def frozen_answers_the_same(subject: Subject) -> str:
    """Compare the inputs of the heads before and after training, and in both modes."""
    trained = train_heads(subject)
    after = _features(trained.network, trained.heads, trained.images)
    for path, inputs in trained.features[False].items():
        if not _same(inputs, trained.features[True][path]):
            apart = (inputs - trained.features[True][path]).abs().max().item()
            raise CheckFailed(f"what enters {path} differs by {apart:.3g} in training and in use")
    for training, mode in ((False, "eval mode"), (True, "train mode")):
        for path, inputs in trained.features[training].items():
            if not _same(inputs, after[training][path]):
                apart = (inputs - after[training][path]).abs().max().item()
                message = f"in {mode}, the input of {path} differs by {apart:.3g} after training"
                raise CheckFailed(message)
    _check_batch(trained)
    shapes = [f"{path} {tuple(f.shape)}" for path, f in trained.features[False].items()]
    return f"bit-identical: {', '.join(shapes)}"


def _check_batch(trained: HeadTraining) -> None:
    """Compare the output for an image beside two others, by a tolerance for other kernels."""
    images = noise(2 * BATCH, trained.network.preprocess, seed=5)
    first, second = (_logits(trained.network, batch) for batch in (images[:-1], images[[0, -1, 1]]))
    apart, largest = (first[0] - second[0]).abs().max().item(), first[0].abs().max().item()
    if apart > 1e-3 * largest:
        message = f"the output for an image differs by {apart:.3g} beside other images"
        raise CheckFailed(f"{message}; a layer computes statistics over the batch in eval mode")


def everything_has_a_gradient(subject: Subject) -> str:
    """Train every layer, with a single image left over, which batch norm cannot normalise."""
    network = _build(subject, "all")
    _train(network, "all", 2 * BATCH + 1, lr=1e-8)  # gradients of random layers may be huge
    parameters = dict(network.module.named_parameters())
    missing = [name for name, p in parameters.items() if p.requires_grad and p.grad is None]
    if missing:
        message = f"{len(missing)} of {len(parameters)} parameters get no gradient under all"
        raise CheckFailed(f"{message}: {', '.join(missing[:3])}")
    return f"{len(parameters)} parameters"


def _model_file(subject: Subject) -> tuple[Path, HeadTraining]:
    trained = train_heads(subject)
    path = subject.folder / "model.safetensors"
    if not path.exists():
        save_module(trained.module, path, trained.schema, provenance_of(trained.module))
    return path, trained


def _logits(network: Network, images: Tensor) -> Tensor:
    with inference_mode_of(network.module):
        return network.forward(images).main


def _compare(what: str, expected: Tensor, actual: Tensor) -> None:
    if not _same(expected, actual):
        if expected.shape != actual.shape:
            message = f"{what} gives logits {list(actual.shape)}, not {list(expected.shape)}"
            raise CheckFailed(message)
        apart, largest = (expected - actual).abs().max().item(), expected.abs().max().item()
        message = f"{what} gives other logits: {apart:.3g} apart, the largest being {largest:.3g}"
        raise CheckFailed(message)


def saved_and_loaded(subject: Subject) -> str:
    """Save and load a model file, and compare the logits."""
    path, trained = _model_file(subject)
    expected = _logits(trained.network, trained.images)
    loaded = load_model(path, subject.registry, device="cpu")
    if loaded.schema != trained.schema:
        raise CheckFailed(f"the schema {trained.schema} is loaded as {loaded.schema}")
    _compare("the model file", expected, logits_of(loaded, trained.images))
    if subject.fresh is None:
        return "equal logits in this process"
    _compare("a fresh process", expected, subject.fresh(path, trained.images))
    return "equal logits in this process and in a fresh one"


def library_loads_it(subject: Subject) -> str:
    """Build the network with its builder alone, and load the state dict of the model file."""
    from safetensors.torch import load_file

    path, trained = _model_file(subject)
    builder = resolve_target(subject.backbone.builder, f"backbone {subject.backbone.id}")
    kwargs = {**provenance_of(trained.module).kwargs, "num_classes": trained.schema.outputs}
    if not _takes_num_classes(builder):
        raise NotApplicable("its builder has no parameter num_classes")
    alone = builder(weights=None, **kwargs)
    try:
        alone.load_state_dict(load_file(path))
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckFailed(f"its library cannot load the file: {one_line(error)}") from error
    network = trained.network
    bare = Network(
        alone,
        network.heads,
        network.preprocess,
        network.device,
        network.precision,
        network.task,
    )
    _compare("its library alone", _logits(network, trained.images), _logits(bare, trained.images))
    return "equal logits without zoo"


def _takes_num_classes(builder: Any) -> bool:
    parameters = inspect.signature(builder).parameters.values()
    return any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)
