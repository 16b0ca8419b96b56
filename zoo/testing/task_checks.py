"""Promises that zoo makes of a task, tried on its example data and an untrained network."""

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
from zoo.errors import BrokenBackbone
from zoo.models.freeze import inference_mode_of
from zoo.tasks.base import Metric, Outputs, SourceImage
from zoo.testing.findings import Broken, NotApplicable
from zoo.testing.task_subject import COUNT, OWN, TaskSubject, rows_of

# How a split may be cut into batches, or shared among processes.
CUTS = ((1,) * COUNT, (3, 4), (2, 5), (6, 1))
RELATIVE, ABSOLUTE = 1e-5, 1e-7
STEPS, STEP_SIZE = 100, 0.1


def _difference(one: Any, other: Any, name: str = "") -> str | None:
    """Return where two reports differ by more than rounding; None where they do not."""
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


def _compare(what: str, expected: Metric, found: Metric) -> None:
    for one, other in (
        (expected.compute(), found.compute()),
        (expected.report(), found.report()),
    ):
        if (difference := _difference(one, other)) is not None:
            raise Broken(f"{what}: {difference}")


def _through_json(value: Any, what: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Broken(f"{what} cannot be written as JSON: {error}") from error


def has_its_name(subject: TaskSubject) -> str:
    """Compare the names of the class and of what is registered."""
    if subject.task.name != subject.name:
        raise Broken(f"{type(subject.task).__name__} has the name {subject.task.name!r}")
    return type(subject.task).__qualname__


def gives_example_data(subject: TaskSubject) -> str:
    """Ask for example data twice, and look at splits, counts and the schema."""
    data, preprocess = subject.data, subject.network.preprocess
    counts = {name: len(split) for name, split in data.splits.items()}
    if counts.get("train") != COUNT or not counts.get("val"):
        raise Broken(f"of {COUNT} images it has {counts}, and needs train and val")
    if data.schema.outputs < 1:
        raise Broken("its schema has no outputs")
    again = subject.task.example_data(preprocess, COUNT, seed=2)
    transform = subject.task.transform(preprocess)
    (same,) = load_batches(again.splits["train"], transform, range(COUNT), COUNT)
    if again.schema != data.schema or not torch.equal(same.inputs, subject.batch.inputs):
        raise Broken("the same seed gives other data")
    return f"{counts} images, {data.schema.outputs} outputs"


def schema_survives_json(subject: TaskSubject) -> str:
    """Write the schema as a model file does, and read it back."""
    schema = subject.data.schema
    found = subject.task.schema_from_dict(_through_json(schema.to_dict(), "the schema"))
    if found != schema or type(found) is not type(schema):
        raise Broken(f"{schema} comes back as {found}"[:300])
    return f"{type(schema).__name__} of {', '.join(schema.to_dict())}"


def targets_collate(subject: TaskSubject) -> str:
    """Collate the targets of none, one and all samples, as worker processes do."""
    split = subject.data.splits["train"]
    transform = pickle.loads(pickle.dumps(subject.task.transform(subject.network.preprocess)))
    samples = [read_sample(split, transform, index) for index in range(COUNT)]
    targets = [sample.target for sample in samples if isinstance(sample, Sample)]
    whole = subject.batch.targets
    for count in (0, 1, COUNT):
        found = transform.collate(targets[:count])
        if not isinstance(found, Tensor) or len(found) != count:
            raise Broken(f"the targets of {count} samples collate to {_described(found)}")
        if count and (found.shape[1:], found.dtype) != (whole.shape[1:], whole.dtype):
            raise Broken(f"of {count} samples: {_described(found)}, of all: {_described(whole)}")
        if not torch.equal(found, whole[:count]) and count:
            raise Broken(f"the targets of {count} samples are others than in a batch")
    return f"{COUNT} targets of {list(whole.shape[1:])}, {whole.dtype}"


def _described(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)[:80]


def targets_of_cached_features(subject: TaskSubject) -> str:
    """Compare the targets that heads train on with cached features to those of batches."""
    transform = subject.task.transform(subject.network.preprocess)
    found = subject.task.split_targets(subject.data.splits["train"], transform)
    whole = subject.batch.targets
    if found.dtype != whole.dtype or not torch.equal(found, whole):
        raise Broken(f"they are {_described(found)}, and in batches {_described(whole)}")
    return _described(found)


def reads_what_the_network_returns(subject: TaskSubject) -> str:
    """Read the network's outputs in training and in use, and something that is no output."""
    network = subject.network
    for training in (True, False):
        network.module.train(training)
        with torch.no_grad():
            outputs = network.forward(subject.batch.inputs, training)
        for output in (outputs.main, *(each for each, _ in outputs.auxiliary)):
            if len(output) != COUNT:
                raise Broken(f"of {COUNT} samples it reads {_described(output)}")
    for junk in (None, "logits", object()):
        try:
            subject.task.read_output(junk, network.heads, True)
        except BrokenBackbone:
            continue
        raise Broken(f"it takes {junk!r:.40} for an output")
    return _described(outputs.main)


def combines_heads_as_the_network(subject: TaskSubject) -> str:
    """Compare `combine_heads` on the heads' own outputs with `read_output` on the network's."""
    network = subject.network
    if (reason := subject.task.head_outputs_differ(network.heads)) is not None:
        raise NotApplicable(reason)
    reason, _ = check_head_equivalence(network, subject.batch.inputs)
    if reason is None:
        return f"equal for {len(network.heads)} heads"
    with inference_mode_of(network.module), HeadHooks(network.module, network.paths) as hooks:
        main = network.forward(subject.batch.inputs).main
    if hooks.outputs[network.paths[0]].shape != main.shape:
        raise NotApplicable(f"on {subject.trial.backbone.id} {reason}")
    raise Broken(f"on {subject.trial.backbone.id} {reason}")


def _leaf(outputs: Outputs) -> Outputs:
    """Return outputs that gradients are computed for."""
    auxiliary = tuple((o.detach().clone().requires_grad_(), w) for o, w in outputs.auxiliary)
    return Outputs(outputs.main.detach().clone().requires_grad_(), auxiliary)


def _total(subject: TaskSubject, outputs: Outputs, targets: Tensor) -> Tensor:
    parts = subject.task.loss(outputs, targets)
    if not parts:
        raise Broken("the loss has no parts")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim or not bool(part.isfinite()):
            raise Broken(f"the part {name!r} is {_described(part)}, not one finite number")
        if not part.requires_grad:
            raise Broken(f"no gradient comes from the part {name!r}")
    return torch.stack(list(parts.values())).sum()


def loss_trains(subject: TaskSubject) -> str:
    """Compute the loss in training, look for gradients, and follow them for some steps."""
    subject.network.module.train()
    outputs = _leaf(subject.network.forward(subject.batch.inputs, training=True))
    several = [outputs.main, *(each for each, _ in outputs.auxiliary)]
    optimizer, losses = torch.optim.Adam(several, lr=STEP_SIZE), []
    for _ in range(STEPS):
        loss = _total(subject, outputs, subject.batch.targets)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for number, output in enumerate(several):
            if output.grad is None or not bool(output.grad.isfinite().all()):
                raise Broken(f"no finite gradient reaches output {number}")
        optimizer.step()
    if not losses[-1] < losses[0]:
        raise Broken(
            f"minimised for {STEPS} steps, it went from {losses[0]:.4g} to {losses[-1]:.4g}"
        )
    return f"{', '.join(subject.task.loss(outputs, subject.batch.targets))}: {losses[0]:.4g}"


def loss_is_a_mean(subject: TaskSubject) -> str:
    """Compare the loss of a batch with the mean over its parts, each by its count of items."""
    outputs, targets, task = _leaf(subject.outputs), subject.batch.targets, subject.task
    whole, items = _total(subject, outputs, targets).item(), task.count(targets)
    for cuts in CUTS:
        first, mean = 0, 0.0
        for size in cuts:
            rows = slice(first, first + size)
            part = _total(subject, rows_of(outputs, rows), targets[rows]).item()
            mean += part * task.count(targets[rows]) / items
            first += size
        if not math.isclose(whole, mean, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            raise Broken(f"of a batch it is {whole:.6g}, and over parts of {cuts} {mean:.6g}")
    return f"{whole:.6g} over {items} items"


def metric_names_its_numbers(subject: TaskSubject) -> str:
    """Compute a metric, and look for every column and for numbers that JSON can hold."""
    task, metric = subject.task, subject.metric()
    values, report = metric.compute(), metric.report()
    if missing := [n for n in (*task.columns, "loss", "images", OWN) if n not in values]:
        raise Broken(f"compute gives no {missing[0]}")
    if values["images"] != COUNT:
        raise Broken(f"of {COUNT} images it counts {values['images']}")
    odd = [n for n, v in values.items() if not isinstance(v, (int, float)) or not math.isfinite(v)]
    if odd:
        raise Broken(f"{odd[0]} is {values[odd[0]]!r:.40}, not a finite number")
    if missing := [n for n in (*values, *report) if n not in (*task.reserved, OWN)]:
        raise Broken(f"{missing[0]} is not reserved, so that a user's metric could have the name")
    if missing := [n for n in task.labels if n not in values]:
        raise Broken(f"labels name {missing[0]}, which compute does not give")
    _through_json(report, "the report")
    task.metric_line(report, task.chance(subject.data.schema))
    task.metric_table(report)
    return ", ".join(f"{name} {values[name]:.4g}" for name in task.columns)


def metric_ignores_batches(subject: TaskSubject) -> str:
    """Measure the same samples as one batch, one by one, and in batches of unequal sizes."""
    whole = subject.metric()
    for cuts in CUTS:
        _compare(f"in one batch and in batches of {cuts}", whole, subject.metric(cuts))
    return f"{len(CUTS)} ways of cutting {COUNT} samples"


def metric_merges(subject: TaskSubject) -> str:
    """Measure parts of the samples apart, an empty part too, and merge."""
    whole = subject.metric()
    for cuts in CUTS:
        first = 0
        merged = subject.new_metric()
        for size in (*cuts, 0):
            part = subject.new_metric()
            subject.update(part, (size,) if size else (), first)
            merged.merge(part)
            first += size
        _compare(f"of one process and merged of parts of {cuts}", whole, merged)
    return f"{len(whole.sums)} sums and {len(whole.rows)} lists of {len(CUTS)} partitions"


def metric_state_is_saved(subject: TaskSubject) -> str:
    """Save a metric half-way, restore it into a new one, and go on with both."""
    half, whole = COUNT // 2, subject.metric()
    metric = subject.new_metric()
    subject.update(metric, (half,))
    state, before = metric.state_dict(), metric.report()
    subject.update(metric, (COUNT - half,), half)
    restored = subject.new_metric()
    restored.load_state_dict(state)
    if (difference := _difference(before, restored.report())) is not None:
        raise Broken(f"before it was saved and after: {difference}")
    subject.update(restored, (COUNT - half,), half)
    _compare("restored half-way", whole, restored)
    return f"{', '.join([*state['sums'], *state['rows']])}"


def score_ranks_the_better_higher(subject: TaskSubject) -> str:
    """Compare the score of outputs with that of outputs that the loss has improved."""
    outputs = _leaf(Outputs(subject.outputs.main))
    optimizer = torch.optim.Adam([outputs.main], lr=STEP_SIZE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        _total(subject, outputs, subject.batch.targets).backward()
        optimizer.step()
    metrics = [subject.metric(), subject.metric(outputs=Outputs(outputs.main.detach()))]
    worse, better = (metric.score(metric.compute()) for metric in metrics)
    if not better > worse:
        raise Broken(f"after {STEPS} steps down the loss the score went from {worse} to {better}")
    return f"{worse} < {better}"


def predictions_survive_json(subject: TaskSubject) -> str:
    """Predict all images at once and one by one, and write what comes of it as JSON."""
    from PIL import Image

    preprocess, task = subject.network.preprocess, subject.task
    size = (2 * preprocess.width + 1, preprocess.height + 3)
    images = [
        SourceImage(f"{number}.png", size, preprocess, lambda: Image.new("RGB", size))
        for number in range(COUNT)
    ]
    schema = subject.data.schema
    answers = task.predict(subject.outputs, images, schema)
    if len(answers) != COUNT or not all("predictions" in answer for answer in answers):
        raise Broken(f"of {COUNT} images it gives {len(answers)} answers, {answers!r:.80}")
    if (found := _through_json(answers, "a prediction")) != answers:
        raise Broken(f"through JSON predictions become others: {found[0]!r:.120}")
    for number, answer in enumerate(answers):
        part = rows_of(subject.outputs, slice(number, number + 1))
        (alone,) = task.predict(part, images[number : number + 1], schema)
        if (difference := _difference(answer, alone)) is not None:
            raise Broken(f"in a batch and alone {difference}")
        lines = task.prediction_lines(answer)
        if not all(isinstance(line, str) and "\n" not in line for line in lines):
            raise Broken(f"prediction_lines gives {lines!r:.80}, not lines of text")
    return f"{answers[0]['predictions']!r:.80}"
