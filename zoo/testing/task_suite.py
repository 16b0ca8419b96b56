"""The checks of a task, and functions to run them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from zoo.errors import UsageError
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import load_task
from zoo.testing import task_checks
from zoo.testing.findings import Check, Finding
from zoo.testing.subject import Subject
from zoo.testing.suite import evaluate_check
from zoo.testing.task_subject import TaskSubject

TASK = "task"
_check = partial(Check, kind=TASK)

# What checks need; see `Check.needs`.
EXAMPLE, OUTPUTS = ("gives_example_data",), ("reads_what_the_network_returns",)
LOSS, METRIC = ("loss_trains",), ("metric_names_its_numbers",)

TASK_SUITE = (
    _check(
        "has_its_name",
        "the name of its class is the registered name",
        run=task_checks.has_its_name,
    ),
    _check(
        "gives_example_data",
        "it has example data, the same for the same seed",
        run=task_checks.gives_example_data,
    ),
    _check(
        "schema_survives_json",
        "its schema survives a round trip through a model file",
        run=task_checks.schema_survives_json,
        needs=EXAMPLE,
    ),
    _check(
        "targets_collate",
        "targets of none, one and several samples collate to the same type and shape",
        run=task_checks.targets_collate,
        needs=EXAMPLE,
    ),
    _check(
        "targets_of_cached_features",
        "targets for cached features equal those of batches",
        run=task_checks.targets_of_cached_features,
        needs=EXAMPLE,
    ),
    _check(
        "reads_what_the_network_returns",
        "it reads the network's outputs, and rejects invalid ones",
        run=task_checks.reads_what_the_network_returns,
        needs=EXAMPLE,
    ),
    _check(
        "combines_heads_as_the_network",
        "combined outputs of the heads equal the network's output",
        run=task_checks.combines_heads_as_the_network,
        needs=OUTPUTS,
    ),
    _check(
        "loss_trains",
        "the terms of the loss are finite, and gradient descent lowers them",
        run=task_checks.loss_trains,
        needs=OUTPUTS,
    ),
    _check(
        "loss_is_a_mean",
        "the loss is a mean over `count` items, for any split into micro-batches",
        run=task_checks.loss_is_a_mean,
        needs=LOSS,
    ),
    _check(
        "metric_names_its_numbers",
        "the metric computes every column and direction, loss and images, finite and with "
        "reserved names",
        run=task_checks.metric_names_its_numbers,
        needs=OUTPUTS,
    ),
    _check(
        "metric_ignores_batches",
        "the metric does not depend on the batch size",
        run=task_checks.metric_ignores_batches,
        needs=METRIC,
    ),
    _check(
        "metric_merges",
        "metrics merged over processes equal those of one process",
        run=task_checks.metric_merges,
        needs=METRIC,
    ),
    _check(
        "metric_state_is_saved",
        "a metric restored from its state computes the same values",
        run=task_checks.metric_state_is_saved,
        needs=METRIC,
    ),
    _check(
        "score_ranks_the_better_higher",
        "outputs with a lower loss have a higher score, which ranks by the first of `directions`",
        run=task_checks.score_ranks_the_better_higher,
        needs=(*LOSS, *METRIC),
    ),
    _check(
        "predictions_survive_json",
        "predictions are plain data, and do not depend on the batch",
        run=task_checks.predictions_survive_json,
        needs=OUTPUTS,
    ),
)


def task_subject(name: str, registry: Registry, backbone: str | None = None) -> TaskSubject:
    """Return a task under test.

    Args:
        name: of the task.
        registry: of task and backbones.
        backbone: to run it with; None for the smallest of the task, preferably of the plugin that
            registers the task.

    Raises:
        UsageError: there is no such task, or no backbone of it.
        BrokenPlugin: the task cannot be imported, or is not a `BaseTask`.
        UnknownBackbone: there is no such backbone.
    """
    described = registry.task(name)
    task = load_task(described)
    chosen = registry.get(backbone) if backbone else None
    if chosen is None:
        candidates = [each for each in registry.find((), task=name) if not each.refuse]
        if not candidates:
            hint = "a plugin registers one with task=..., or a registry.toml derives one"
            raise UsageError(f"there is no backbone of the task {name!r} to check it with", hint)
        chosen = min(candidates, key=lambda each: _order(each, described.source))
    return TaskSubject(name, task, Subject(chosen, registry))


def _order(backbone: Backbone, source: str) -> tuple[bool, float]:
    return backbone.source != source, float("inf") if backbone.params is None else backbone.params


def run_task_check(subject: TaskSubject, check: Check) -> Finding:
    """Run one check on a task.

    Raises:
        EnvironmentProblem: the system fails, not the task.
        MemoryError: out of memory.
    """
    return evaluate_check(subject.name, check, subject)


def run_task_checks(subject: TaskSubject) -> Iterator[Finding]:
    """Run every check on a task, in order."""
    for check in TASK_SUITE:
        yield run_task_check(subject, check)
