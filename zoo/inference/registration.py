"""Register a trained model by name."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from zoo.errors import UnknownBackbone, UsageError, WeightsError
from zoo.modelfile import UNFINISHED, parse_card
from zoo.models.own_file import OwnFile, locate_model
from zoo.registry.own_models import OwnModel, check_name, write_own_model
from zoo.registry.registry import Registry
from zoo.tasks.base import load_task


def register_own_model(
    name: str, run: str | Path, registry: Registry, replace: bool = False
) -> OwnModel:
    """Register the model of a run folder, or a model file, by a name that commands take.

    Args:
        name: of letters, digits, `-`, `_` and `.`.
        run: a run folder, a model file, or another registered name.
        registry: of backbones, whose names are refused.
        replace: overwrite what has that name.

    Raises:
        UsageError: the name is invalid, or is that of a backbone or of another model.
        WeightsError: there is no model, its training is not finished, or it is damaged.
        EnvironmentProblem: the name cannot be written.
    """
    check_name(name)
    _check_free(name, registry)
    location = locate_model(run)
    if location is None:
        hint = "give the folder of a training, or its model.safetensors"
        raise WeightsError(f"{run} is neither a run folder nor a model file", hint)
    own = OwnFile.open(location)
    card = own.card or parse_card(own.path, own.content)
    if (done := card.settings.get(UNFINISHED)) is not None:
        hint = f"`zoo finetune --resume {run}` finishes it"
        raise WeightsError(f"the training of {run} is not finished: its model is of {done}", hint)
    # In the order of the task, which the file does not have.
    columns = load_task(registry.task(card.task)).columns
    metrics = {
        split: {name: values[name] for name in (*columns, *values) if name in values}
        for split, values in card.metrics.items()
        if isinstance(values, dict)
    }
    model = OwnModel(
        name=name,
        path=str(own.path.absolute()),
        sha256=own.content.sha256,
        backbone=card.backbone,
        task=card.task,
        classes=card.classes,
        metrics=metrics,
        registered=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    write_own_model(model, replace)
    return model


def _check_free(name: str, registry: Registry) -> None:
    """Check that a name is not that of a backbone.

    Raises:
        UsageError: it is.
    """
    try:
        backbone = registry.get(name)
    except UnknownBackbone:
        return
    raise UsageError(f"{name!r} is the name of {backbone.id}", "choose another name")
