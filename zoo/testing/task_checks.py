"""Checks of a task, on its example data and an untrained network."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.data.dataset import Sample, read_sample
from zoo.data.loader import load_batches
from zoo.engine.features.hooks import HeadHooks, check_head_equivalence
from zoo.errors import BrokenBackbone, counted
from zoo.models.freeze import inference_mode_of
from zoo.tasks.base import Metric, Outputs, SourceImage
from zoo.testing.findings import CheckFailed, NotApplicable
from zoo.testing.task_subject import COUNT, USER_METRIC, TaskSubject, rows_of

# Batch sizes that split the example data.
PARTITIONS = ((1,) * COUNT, (3, 4), (2, 5), (6, 1))
RELATIVE, ABSOLUTE = 1e-5, 1e-7
STEPS, STEP_SIZE = 100, 0.1


def _difference(one: Any, other: Any, name: str = "") -> str | None:
    """Return the first difference between two reports beyond rounding, or None."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        pairs = [(one[key], other[key], f"{name}.{key}" if name else str(key)) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        pairs = [(a, b, f"{name}[{n}]") for n, (a, b) in enumerate(zip(one, other, strict=False))]
        if len(one) != len(other):
            return f"{name} has {len(one)} and {len(other)} items"
    elif isinstance(one, float) and isinstance(other, float):
        same = math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return None if same else f"{name} is {one:.7g} and {other:.7g}"
    else:
        return None if one == other else f"{name} is {one!r:.60} and {other!r:.60}"
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)


def _compare(what: str, expected: Metric, actual: Metric) -> None:
    for one, other in (
        (expected.compute(), actual.compute()),
        (expected.report(), actual.report()),
    ):
        if (difference := _difference(one, other)) is not None:
            raise CheckFailed(f"{what}: {difference}")


def _through_json(value: Any, what: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"{what} is not JSON-serializable: {error}") from error


def has_its_name(subject: TaskSubject) -> str:
    """Compare the name of the class with the registered name."""
    if subject.task.name != subject.name:
        raise CheckFailed(f"{type(subject.task).__name__} has the name {subject.task.name!r}")
    return type(subject.task).__qualname__


def gives_example_data(subject: TaskSubject) -> str:
    """Create example data twice, and validate splits, counts and the schema."""
    data, preprocess = subject.data, subject.network.preprocess
    counts = {name: len(split) for name, split in data.splits.items()}
    if counts.get("train") != COUNT or not counts.get("val"):
        message = f"example data of {COUNT} images has the splits {counts}; train and val required"
        raise CheckFailed(message)
    if data.schema.outputs < 1:
        raise CheckFailed("its schema has no outputs")
    again = subject.task.example_data(preprocess, COUNT, seed=2)
    transform = subject.task.transform(preprocess)
    (same,) = load_batches(again.splits["train"], transform, range(COUNT), COUNT)
    if again.schema != data.schema or not torch.equal(same.inputs, subject.batch.inputs):
        raise CheckFailed("the same seed creates different data")
    return f"{counts} images, {counted(data.schema.outputs, 'output')}"


def schema_survives_json(subject: TaskSubject) -> str:
    """Serialize the schema as a model file does, and read it back."""
    schema = subject.data.schema
    restored = subject.task.schema_from_dict(_through_json(schema.to_dict(), "the schema"))
    if restored != schema or type(restored) is not type(schema):
        raise CheckFailed(f"{schema} is restored as {restored}"[:300])
    return f"{type(schema).__name__} of {', '.join(schema.to_dict())}"


def targets_collate(subject: TaskSubject) -> str:
    """Collate the targets of none, one and all samples with a pickled transform."""
    split = subject.data.splits["train"]
    transform = pickle.loads(pickle.dumps(subject.task.transform(subject.network.preprocess)))
    samples = [read_sample(split, transform, index) for index in range(COUNT)]
    targets = [sample.target for sample in samples if isinstance(sample, Sample)]
    whole = subject.batch.targets
    for count in (0, 1, COUNT):
        collated = transform.collate(targets[:count])
        if not isinstance(collated, Tensor) or len(collated) != count:
            raise CheckFailed(f"the targets of {count} samples collate to {_describe(collated)}")
        if count and (collated.shape[1:], collated.dtype) != (whole.shape[1:], whole.dtype):
            message = f"{_describe(collated)} for {count} samples, {_describe(whole)} for {COUNT}"
            raise CheckFailed(message)
        if not torch.equal(collated, whole[:count]) and count:
            raise CheckFailed(f"the targets of {count} samples differ from those in a batch")
    return f"{COUNT} targets of {list(whole.shape[1:])}, {whole.dtype}"


def _describe(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)[:80]


def targets_of_cached_features(subject: TaskSubject) -> str:
    """Compare the targets for cached features with those of batches."""
    transform = subject.task.transform(subject.network.preprocess)
    targets = subject.task.split_targets(subject.data.splits["train"], transform)
    whole = subject.batch.targets
    if targets.dtype != whole.dtype or not torch.equal(targets, whole):
        message = f"split_targets returns {_describe(targets)}, and batches have {_describe(whole)}"
        raise CheckFailed(message)
    return _describe(targets)


def reads_what_the_network_returns(subject: TaskSubject) -> str:
    """Read the network's outputs in both modes, and reject invalid outputs."""
    network = subject.network
    for training in (True, False):
        network.module.train(training)
        with torch.no_grad():
            outputs = network.forward(subject.batch.inputs, training)
        for output in (outputs.main, *(each for each, _ in outputs.auxiliary)):
            if len(output) != COUNT:
                raise CheckFailed(f"it reads {_describe(output)} for {COUNT} samples")
    for invalid in (None, "logits", object()):
        try:
            subject.task.read_output(invalid, network.heads, True)
        except BrokenBackbone:
            continue
        raise CheckFailed(f"read_output accepts {invalid!r:.40}")
    return _describe(outputs.main)


def combines_heads_as_the_network(subject: TaskSubject) -> str:
    """Compare `combine_heads` of the heads' outputs with `read_output` of the network's."""
    network = subject.network
    if (reason := subject.task.head_outputs_differ(network.heads)) is not None:
        raise NotApplicable(reason)
    reason, _ = check_head_equivalence(network, subject.batch.inputs)
    if reason is None:
        return f"equal for {counted(len(network.heads), 'head')}"
    with inference_mode_of(network.module), HeadHooks(network.module, network.paths) as hooks:
        main = network.forward(subject.batch.inputs).main
    if hooks.outputs[network.paths[0]].shape != main.shape:
        raise NotApplicable(f"on {subject.backbone_subject.backbone.id} {reason}")
    raise CheckFailed(f"on {subject.backbone_subject.backbone.id} {reason}")


def _leaf(outputs: Outputs) -> Outputs:
    """Return outputs as leaf tensors that require gradients."""
    auxiliary = tuple((o.detach().clone().requires_grad_(), w) for o, w in outputs.auxiliary)
    return Outputs(outputs.main.detach().clone().requires_grad_(), auxiliary)


def _total_loss(subject: TaskSubject, outputs: Outputs, targets: Tensor) -> Tensor:
    parts = subject.task.loss(outputs, targets)
    if not parts:
        raise CheckFailed("the loss has no terms")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim or not bool(part.isfinite()):
            raise CheckFailed(f"the term {name!r} is {_describe(part)}, not a finite scalar")
        if not part.requires_grad:
            raise CheckFailed(f"the term {name!r} has no gradient")
    return torch.stack(list(parts.values())).sum()


def loss_trains(subject: TaskSubject) -> str:
    """Minimise the loss over the outputs, and validate their gradients."""
    subject.network.module.train()
    outputs = _leaf(subject.network.forward(subject.batch.inputs, training=True))
    tensors = [outputs.main, *(each for each, _ in outputs.auxiliary)]
    optimizer, losses = torch.optim.Adam(tensors, lr=STEP_SIZE), []
    for _ in range(STEPS):
        loss = _total_loss(subject, outputs, subject.batch.targets)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for number, output in enumerate(tensors):
            if output.grad is None or not bool(output.grad.isfinite().all()):
                raise CheckFailed(f"output {number} has no finite gradient")
        optimizer.step()
    if not losses[-1] < losses[0]:
        raise CheckFailed(
            f"{STEPS} optimizer steps change it from {losses[0]:.4g} to {losses[-1]:.4g}"
        )
    return f"{', '.join(subject.task.loss(outputs, subject.batch.targets))}: {losses[0]:.4g}"


def loss_is_a_mean(subject: TaskSubject) -> str:
    """Compare the loss of a batch with the mean over micro-batches, weighted by `count`."""
    outputs, targets, task = _leaf(subject.outputs), subject.batch.targets, subject.task
    whole, items = _total_loss(subject, outputs, targets).item(), task.count(targets)
    for sizes in PARTITIONS:
        first, mean = 0, 0.0
        for size in sizes:
            rows = slice(first, first + size)
            part = _total_loss(subject, rows_of(outputs, rows), targets[rows]).item()
            mean += part * task.count(targets[rows]) / items
            first += size
        if not math.isclose(whole, mean, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            message = f"{whole:.6g} over a batch, {mean:.6g} over micro-batches of {sizes}"
            raise CheckFailed(message)
    return f"{whole:.6g} over {items} items"


def metric_names_its_numbers(subject: TaskSubject) -> str:
    """Compute a metric, and validate names and values."""
    task, metric = subject.task, subject.metric()
    values, report = metric.compute(), metric.report()
    if missing := [n for n in (*task.columns, "loss", "images", USER_METRIC) if n not in values]:
        raise CheckFailed(f"compute() does not return {missing[0]}")
    if values["images"] != COUNT:
        raise CheckFailed(f"it counts {values['images']} of {COUNT} images")
    for name, value in values.items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CheckFailed(f"{name} is {value!r:.40}, not a finite number")
    if free := [n for n in (*values, *report) if n not in (*task.reserved, USER_METRIC)]:
        raise CheckFailed(f"{free[0]} is not reserved, so a user metric could have the same name")
    if missing := [n for n in task.labels if n not in values]:
        raise CheckFailed(f"labels contain {missing[0]}, which compute() does not return")
    if missing := [n for n in task.directions if n not in values]:
        raise CheckFailed(f"directions contain {missing[0]}, which compute() does not return")
    _through_json(report, "the report")
    task.metric_line(report, task.chance(subject.data.schema))
    task.metric_table(report)
    return ", ".join(f"{name} {values[name]:.4g}" for name in task.columns)


def metric_ignores_batches(subject: TaskSubject) -> str:
    """Compare the metric of one batch with that of batches of other sizes."""
    whole = subject.metric()
    for sizes in PARTITIONS:
        _compare(f"one batch and batches of {sizes}", whole, subject.metric(sizes))
    return f"{len(PARTITIONS)} partitions of {COUNT} samples"


def metric_merges(subject: TaskSubject) -> str:
    """Compare a metric with one merged from those of partitions, one of them empty."""
    whole = subject.metric()
    for sizes in PARTITIONS:
        first = 0
        merged = subject.new_metric()
        for size in (*sizes, 0):
            part = subject.new_metric()
            subject.update(part, (size,) if size else (), first)
            merged.merge(part)
            first += size
        _compare(f"one process and merged partitions of {sizes}", whole, merged)
    return f"{len(whole.sums)} sums and {len(whole.rows)} lists of {len(PARTITIONS)} partitions"


def metric_state_is_saved(subject: TaskSubject) -> str:
    """Save the state of a metric, restore it into a new one, and update both."""
    half, whole = COUNT // 2, subject.metric()
    metric = subject.new_metric()
    subject.update(metric, (half,))
    state, before = metric.state_dict(), metric.report()
    subject.update(metric, (COUNT - half,), half)
    restored = subject.new_metric()
    restored.load_state_dict(state)
    if (difference := _difference(before, restored.report())) is not None:
        raise CheckFailed(f"saved and restored: {difference}")
    subject.update(restored, (COUNT - half,), half)
    _compare("uninterrupted and restored", whole, restored)
    return f"{', '.join([*state['sums'], *state['rows']])}"


def score_ranks_the_better_higher(subject: TaskSubject) -> str:
    """Compare the scores of outputs before and after the loss is minimised."""
    outputs = _leaf(Outputs(subject.outputs.main))
    optimizer = torch.optim.Adam([outputs.main], lr=STEP_SIZE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        _total_loss(subject, outputs, subject.batch.targets).backward()
        optimizer.step()
    metrics = [subject.metric(), subject.metric(outputs=Outputs(outputs.main.detach()))]
    worse, better = (metric.score(metric.compute()) for metric in metrics)
    if not better > worse:
        raise CheckFailed(f"a lower loss does not raise the score: {worse} to {better}")
    first, direction = next(iter(subject.task.directions.items()))
    value = metrics[1].compute()[first]
    if better[0] != (value if direction == "max" else -value):
        message = f"the score ranks by {better[0]:.7g}, and {first}, the first of directions"
        raise CheckFailed(f"{message}, is {value:.7g}")
    return f"{worse} < {better}"


def predictions_survive_json(subject: TaskSubject) -> str:
    """Predict all images as a batch and individually, and serialize the predictions."""
    from PIL import Image

    preprocess, task = subject.network.preprocess, subject.task
    size = (2 * preprocess.width + 1, preprocess.height + 3)
    images = [
        SourceImage(f"{number}.png", size, preprocess, lambda: Image.new("RGB", size))
        for number in range(COUNT)
    ]
    schema = subject.data.schema
    results = task.predict(subject.outputs, images, schema)
    if len(results) != COUNT or not all("predictions" in result for result in results):
        raise CheckFailed(f"predict() returns {len(results)} of {COUNT}: {results!r:.80}")
    if (restored := _through_json(results, "a prediction")) != results:
        raise CheckFailed(f"predictions change in a JSON round trip: {restored[0]!r:.120}")
    for number, result in enumerate(results):
        part = rows_of(subject.outputs, slice(number, number + 1))
        (alone,) = task.predict(part, images[number : number + 1], schema)
        if (difference := _difference(result, alone)) is not None:
            raise CheckFailed(f"in a batch and alone: {difference}")
        lines = task.prediction_lines(result)
        if not all(isinstance(line, str) and "\n" not in line for line in lines):
            raise CheckFailed(f"prediction_lines() returns {lines!r:.80}, not lines of text")
    return f"{results[0]['predictions']!r:.80}"
