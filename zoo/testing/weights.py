"""The check of published weights: what is on this machine is opened and loaded."""

from __future__ import annotations

from zoo.errors import EnvironmentProblem, UsageError, ZooError, counted
from zoo.models.base_weights import resolve_base
from zoo.models.build import load_published
from zoo.models.builder import build_network
from zoo.models.heads import head_classes, resolve_head
from zoo.models.weight_sources import DOWNLOAD, locate
from zoo.models.weights import open_local
from zoo.spec import Backbone, Weights
from zoo.tasks.published import published_classes
from zoo.testing.findings import CheckFailed, NotApplicable, NotTried
from zoo.testing.offline import forbid_network
from zoo.testing.subject import Subject


def weights_load(subject: Subject) -> str:
    """Open the weights on this machine, check their digests, and load them into the network."""
    backbone = subject.backbone
    if not backbone.weights:
        raise NotApplicable("no weights are published")
    local = [each for each in backbone.weights if locate(backbone, each) != DOWNLOAD]
    elsewhere = [each.tag for each in backbone.weights if each not in local]
    not_tried = f"to be downloaded, not tried: {', '.join(elsewhere)}" if elsewhere else ""
    problems = {each.tag: problem_of(backbone, each) for each in local}
    if failed := [f"{tag}: {problem}" for tag, problem in problems.items() if problem]:
        raise CheckFailed("; ".join(failed))
    if not local:
        raise NotTried(not_tried)
    return "; ".join(filter(None, (f"loaded: {', '.join(problems)}", not_tried)))


def problem_of(backbone: Backbone, weights: Weights) -> str | None:
    """Return why weights do not load, or do not match their description; None where they do."""
    try:
        with forbid_network():
            _load(backbone, weights)
    except EnvironmentProblem:
        raise
    except ZooError as error:
        return str(error)
    return None


def _load(backbone: Backbone, weights: Weights) -> None:
    """Load weights into a new network, and compare the number of classes.

    Raises:
        ZooError: they do not load, or have another number of classes than stated.
    """
    file = open_local(backbone, weights)
    base = resolve_base(backbone, weights.tag)
    model = build_network(backbone, base.kwargs)
    load_published(model, backbone, base, file)
    if not backbone.heads or not weights.num_classes or weights.features_only:
        return
    path = resolve_head(model, backbone.heads[0].path)
    outputs = head_classes(model.get_submodule(path))
    if outputs not in (None, weights.num_classes):
        message = (
            f"its head {path} has {counted(outputs, 'class')}, num_classes is {weights.num_classes}"
        )
        raise UsageError(message, f"state num_classes={outputs}")
    if weights.classes is not None:
        published_classes(backbone, weights)
