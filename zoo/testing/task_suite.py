"""The suite of a task: every promise that zoo makes of one, and how to try it."""

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
from zoo.testing.suite import attempt
from zoo.testing.task_subject import TaskSubject

TASK = "task"
_check = partial(Check, kind=TASK)

TASK_SUITE = (
    _check(
        "has_its_name",
        "its class has the name that it is registered by",
        hold=task_checks.has_its_name,
    ),
    _check(
        "gives_example_data",
        "it has example data, the same for the same seed",
        hold=task_checks.gives_example_data,
    ),
    _check(
        "schema_survives_json",
        "its schema comes back from a model file as it was",
        hold=task_checks.schema_survives_json,
    ),
    _check(
        "targets_collate",
        "targets of none, one and several samples collate alike",
        hold=task_checks.targets_collate,
    ),
    _check(
        "targets_of_cached_features",
        "heads on cached features train on the targets that batches have",
        hold=task_checks.targets_of_cached_features,
    ),
    _check(
        "reads_what_the_network_returns",
        "it reads the network's outputs, and refuses what is none",
        hold=task_checks.reads_what_the_network_returns,
    ),
    _check(
        "combines_heads_as_the_network",
        "the heads' outputs combine to what the network returns",
        hold=task_checks.combines_heads_as_the_network,
    ),
    _check(
        "loss_trains",
        "the parts of the loss are finite numbers, and following their gradients lowers them",
        hold=task_checks.loss_trains,
    ),
    _check(
        "loss_is_a_mean",
        "the loss is a mean over as many items as `count` says, however a batch is cut",
        hold=task_checks.loss_is_a_mean,
    ),
    _check(
        "metric_names_its_numbers",
        "the metric gives every column, loss and images, as finite numbers of reserved names",
        hold=task_checks.metric_names_its_numbers,
    ),
    _check(
        "metric_ignores_batches",
        "batches of one and of unequal sizes measure what one batch does",
        hold=task_checks.metric_ignores_batches,
    ),
    _check(
        "metric_merges",
        "metrics merged over processes measure what one process does",
        hold=task_checks.metric_merges,
    ),
    _check(
        "metric_state_is_saved",
        "a metric goes on from its saved state as if it had not stopped",
        hold=task_checks.metric_state_is_saved,
    ),
    _check(
        "score_ranks_the_better_higher",
        "outputs of a lower loss have a higher score",
        hold=task_checks.score_ranks_the_better_higher,
    ),
    _check(
        "predictions_survive_json",
        "predictions are plain data, the same in a batch and alone",
        hold=task_checks.predictions_survive_json,
    ),
)


def task_subject(name: str, registry: Registry, backbone: str | None = None) -> TaskSubject:
    """Return a task on trial.

    Args:
        name: of the task.
        registry: that has it.
        backbone: that it is tried on; None for the smallest of the task, one of the plugin that
            registers the task where there are any.

    Raises:
        UsageError: there is no such task, or no backbone of it.
        BrokenPlugin: it cannot be imported, or is no task.
        UnknownBackbone: there is none of that name.
    """
    described = registry.task(name)
    task = load_task(described)
    chosen = registry.get(backbone) if backbone else None
    if chosen is None:
        candidates = [each for each in registry.find((), task=name) if not each.refuse]
        if not candidates:
            hint = "a plugin registers one with task=..., or a registry.toml derives one"
            raise UsageError(f"there is no backbone of the task {name!r} to try it on", hint)
        chosen = min(candidates, key=lambda each: _order(each, described.source))
    return TaskSubject(name, task, Subject(chosen, registry))


def _order(backbone: Backbone, source: str) -> tuple[bool, float]:
    return backbone.source != source, float("inf") if backbone.params is None else backbone.params


def check_task(subject: TaskSubject, check: Check) -> Finding:
    """Try one promise on a task; whatever goes wrong with it is a finding.

    Raises:
        EnvironmentProblem: the system refuses, which is no fault of the task's.
        MemoryError: there is not enough memory for it.
    """
    return attempt(subject.name, check, subject)


def check_all(subject: TaskSubject) -> Iterator[Finding]:
    """Try every promise on a task, one after the other."""
    for check in TASK_SUITE:
        yield check_task(subject, check)
