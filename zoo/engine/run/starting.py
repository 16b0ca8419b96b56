"""Resolve what a training starts from: a backbone, or a trained model to go on from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zoo.engine.plan.options import Options
from zoo.errors import UnknownBackbone, UsageError, WeightsError
from zoo.modelfile import parse_card
from zoo.models.base_weights import BaseWeights, resolve_base
from zoo.models.own_file import (
    OwnFile,
    OwnLocation,
    backbone_of,
    locate_model,
    locate_weights,
    warn_unfinished,
)
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Args:
        backbone: as registered.
        options: as given, or completed by those of a model file.
        own: the user's weights file; None for others.
        own_head: whether the head is that of the model file.
    """

    backbone: Backbone
    options: Options
    own: OwnFile | None = None
    own_head: bool = False

    def output_names(self, task: BaseTask) -> tuple[str, ...]:
        """Return the names of a model file's outputs; empty where there are none.

        Raises:
            WeightsError: its schema is not of the task.
        """
        if self.own is None or self.own.card is None:
            return ()
        try:
            return task.schema_from_dict(self.own.card.schema).output_names
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"{self.own.path} has an invalid schema: {error}") from error


def resolve_start(name: str, options: Options, registry: Registry) -> Start:
    """Resolve the name of a backbone, or a model file: its path, run folder or registered name.

    A model file decides backbone and preprocess, and its head where no other is given.

    Args:
        name: id, bare name or alias, which come before a path; a path before the name of a
            registered model.
        options: as given.
        registry: of backbones.

    Raises:
        UnknownBackbone: it is none of these.
        UsageError: weights are given beside a model file.
        WeightsError: the file cannot be read, or is not a model file.
    """
    own = None
    try:
        backbone = registry.get(name)
    except UnknownBackbone as error:
        if (location := locate_model(name)) is None:
            if options.resume is not None:
                error.add_note(f"--resume {options.resume} needs its --plugin or --registry again")
            raise
        backbone, options, own = _go_on_from(location, options, registry)
    if own is None and (location := locate_weights(options.weights, backbone)) is not None:
        own = OwnFile.open(location)
    if own is not None and own.card is not None:
        warn_unfinished(own.card, own.path)
    head = own.new_head if own is not None else None
    if head is None or options.head is not None or options.head_at is not None:
        return Start(backbone, options, own)
    return Start(backbone, replace(options, head=head), own, own_head=True)


def _go_on_from(
    location: OwnLocation, options: Options, registry: Registry
) -> tuple[Backbone, Options, OwnFile]:
    if options.weights != "auto":
        message = f"--weights {options.weights} does not apply to {location.path}"
        raise UsageError(message, "a model file has its own weights; omit the option")
    own = OwnFile.open(location)
    card = own.card or parse_card(own.path, own.content)
    return backbone_of(card, own.path, registry), replace(options, weights=str(own.path)), own


def resolve_weights(
    backbone: Backbone, options: Options, start: Start, task: BaseTask
) -> BaseWeights:
    """Resolve the weights that training starts from, without a download.

    Args:
        backbone: with the build options applied.
        options: as given.
        start: of the training.
        task: of the backbone.

    Raises:
        UsageError: no published weights have the tag.
        WeightsError: no weights are published, or the user's file cannot be used.
    """
    if options.weights != "auto" or backbone.weights:
        base = resolve_base(backbone, options.weights, options.build_options, start.own)
        return replace(base, classes=start.output_names(task))
    if options.data is None:
        random = resolve_base(backbone, "none", options.build_options)
        return replace(random, reason="auto: no weights are published")
    message = f"no weights are published for {backbone.id}"
    raise WeightsError(message, "give --weights FILE, or --weights none, or another backbone")
