"""Write the files of a run: the model file with its card, `history.csv`, `run.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.schema import Schema
from zoo.engine.backends.choice import TORCH, engine_class
from zoo.engine.plan.plan import Plan
from zoo.engine.run.claim import RECORD
from zoo.engine.run.environment import environment, versions
from zoo.engine.run.prepare import Prepared
from zoo.engine.run.resume import command_line
from zoo.engine.runtime.network import Network
from zoo.engine.training.state import TrainState
from zoo.errors import UsageError, counted
from zoo.events import EpochEnded
from zoo.files import write_bytes
from zoo.modelfile import MODEL, UNFINISHED, ModelCard, write_model
from zoo.models.base_weights import BaseWeights
from zoo.models.heads import head_classes, resolve_head
from zoo.models.provenance import Provenance
from zoo.options.readers import class_names

HISTORY = "history.csv"


@dataclass(frozen=True)
class Measured:
    """What a training measured.

    Args:
        metrics: by split, as the task reports them.
        bad: reasons by path of the images that could not be read.
        seconds: wall time.
        stages: of it, by name.
        temperature: of the model file; None for 1.
    """

    metrics: dict[str, Any]
    bad: dict[str, str]
    seconds: float
    stages: dict[str, float]
    temperature: float | None


def _metric_names(prepared: Prepared) -> tuple[str, ...]:
    return (*prepared.task.columns, *(prepared.options.metrics or ()))


def _card(
    prepared: Prepared,
    network: Network,
    metrics: dict[str, Any],
    unfinished: str | None = None,
    temperature: float | None = None,
) -> ModelCard:
    plan = prepared.plan
    columns = _metric_names(prepared)
    summary = {name: {k: m[k] for k in columns if k in m} for name, m in metrics.items()}
    return ModelCard(
        backbone=plan.backbone,
        kwargs=plan.kwargs,
        heads=prepared.backbone.heads,
        task=plan.task,
        schema=prepared.data.schema.to_dict(),
        preprocess=plan.preprocess,
        precision=network.precision,
        settings={
            "recipe": plan.recipe,
            "augment": str(plan.augment or "none"),
            "views": plan.views,
            "loss": plan.loss,
            "class_weights": plan.class_weights,
            "label_smoothing": plan.label_smoothing,
            "select": plan.select,
            "patience": plan.patience,
            "phases": [phase.settings() for phase in plan.phases],
            "batch_size": plan.batch_size,
            "micro_batch_size": plan.micro_batch_size,
            "processes": plan.processes,
            "seed": plan.seed,
            "bad_images": plan.bad_images,
            "val_fraction": plan.val_fraction,
            "demonstration": plan.demonstration,
            **({"data": plan.data["options"]} if "options" in plan.data else {}),
            **_given_memory_format(prepared),
            **({UNFINISHED: unfinished} if unfinished else {}),
        },
        data={"fingerprint": plan.data["fingerprint"], "images": plan.data["images"]},
        metrics=summary,
        base=_base(prepared.base),
        versions=versions(),
        new_head=prepared.options.build_options.head.to_dict(),
        temperature=temperature,
        features=_features(prepared, plan, network.precision),
    )


def held_out_temperature(prepared: Prepared, state: TrainState) -> float | None:
    """Return the temperature of a head that the last phase solved for; None for any other.

    The logits of the folds are those of the head but for a fifth of the images. Those of a head
    that is trained by epochs have another scale.
    """
    held_out = state.held_out
    if held_out is None:
        return None
    return prepared.task.temperature(held_out.logits, held_out.labels)


def _features(prepared: Prepared, plan: Plan, precision: str) -> dict[str, Any]:
    """Return what the features were computed by that the head was fitted on; empty without."""
    if not plan.phases[-1].keep_features:
        return {}
    version = engine_class(plan.engine).version()
    if prepared.files is not None:  # which another machine may have computed
        settings = prepared.files.about["settings"]
        _, version = settings.get("engine") or [TORCH, settings.get("versions", {}).get(TORCH)]
    return {"engine": plan.engine, "version": version, "precision": precision}


def _given_memory_format(prepared: Prepared) -> dict[str, str]:
    """Return the memory format if it was given; an automatic one is that of each device."""
    given = prepared.options.memory_format
    return {} if given == "auto" else {"memory_format": given}


def _history_csv(history: list[EpochEnded], names: Sequence[str]) -> bytes:
    text = io.StringIO()
    metrics = (f"val_{name}" for name in names)
    columns = ("phase", "epoch", "lr", "train_loss", *metrics, "best", "seconds")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for event in history:
        values = [event.metrics.get(name, "") for name in names]
        head = [event.phase, event.epoch, event.lr, event.train_loss]
        writer.writerow([*head, *values, int(event.best), round(event.seconds, 3)])
    return text.getvalue().encode()


def save_module(
    module: nn.Module,
    path: Path,
    classes: Sequence[str] | Schema,
    made: Provenance,
    precision: str = "fp32",
) -> str:
    """Write a network trained by user code as a model file, and return its sha256.

    Args:
        module: the network.
        path: of the file.
        classes: names in the order of the outputs, or the schema of a task with other targets.
        made: provenance of the network.
        precision: for predictions.

    Raises:
        UsageError: the number of names is not that of the head's outputs, or the file's suffix is
            not `.safetensors`.
        EnvironmentProblem: the file cannot be written; an existing one is unchanged.
    """
    if path.suffix != ".safetensors":
        hint = f"write {path.with_suffix('.safetensors').name}"
        raise UsageError(f"the suffix of {path.name} is not .safetensors", hint)
    schema = classes if isinstance(classes, Schema) else Schema(class_names(classes))
    if not made.backbone.heads:
        message = f"{made.backbone.id} has no head, so it cannot predict"
        raise UsageError(message, "choose another backbone")
    head = made.backbone.heads[0]
    outputs = head_classes(module.get_submodule(resolve_head(module, head.path)))
    hint = "give a unique name per class, in the order of the outputs"
    if outputs != schema.outputs:
        subject = counted(len(schema.classes), "class is named", "classes are named")
        if not schema.classes:
            subject, hint = f"the schema describes {schema.outputs}", "give the schema of its data"
        raise UsageError(f"{subject}, but the output size of {head.path} is {outputs}", hint)
    card = ModelCard(
        backbone=made.backbone.id,
        task=made.backbone.task,
        schema=schema.to_dict(),
        kwargs=made.kwargs,
        heads=made.backbone.heads,
        preprocess=made.preprocess,
        precision=precision,
        base=_base(made.base),
        versions=versions(),
        new_head=made.new_head.to_dict(),
    )
    return write_model(path, _in_float32(module), card)


def _in_float32(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network; those of one in another precision as float32, as built."""
    tensors = module.state_dict()
    if {each.dtype for each in module.parameters() if each.is_floating_point()} == {torch.float32}:
        return tensors
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def _base(base: BaseWeights) -> dict[str, Any]:
    return {name: value for name, value in base.to_dict().items() if name != "left_out"}


def save_unfinished(prepared: Prepared, network: Network, state: TrainState, folder: Path) -> None:
    """Write the best epoch so far as a model file, whose description states that it is unfinished.

    Raises:
        EnvironmentProblem: the file cannot be written; an existing one is unchanged.
    """
    best, phases = state.best, prepared.plan.phases
    assert best.tensors is not None
    metrics = {} if best.metric is None else {"val": best.metric.report()}
    phase = phases[state.phase]
    done = f"epoch {state.epoch} of {phase.epochs} of {phase.name}"
    tensors: dict[str, Tensor] = {**network.module.state_dict(), **best.tensors}
    write_model(folder / MODEL, tensors, _card(prepared, network, metrics, done))


def save(
    prepared: Prepared,
    network: Network,
    state: TrainState,
    folder: Path,
    measured: Measured,
    *,
    run_id: str,
) -> dict[str, Any]:
    """Write the run folder, `run.json` last, and return the content of that.

    Raises:
        EnvironmentProblem: a file cannot be written.
    """
    write_bytes(folder / HISTORY, _history_csv(state.history, _metric_names(prepared)))
    metrics, seconds = measured.metrics, measured.seconds
    card = _card(prepared, network, metrics, temperature=measured.temperature)
    digest = write_model(folder / MODEL, network.module.state_dict(), card)
    run = {
        "run_id": run_id,
        "backbone": prepared.plan.backbone,
        "task": prepared.plan.task,
        "demonstration": prepared.plan.demonstration,
        "chance": metrics.get("val", {}).get("chance", prepared.task.chance(prepared.data.schema)),
        "model": MODEL,
        "sha256": digest,
        "metrics": metrics,
        "seconds": seconds,
        "stages": {name: round(each, 3) for name, each in measured.stages.items()},
        "command": command_line(*prepared.given),
        "images_per_second": network.forwards / seconds,
        "backbone_forwards": network.forwards,
        "probe": state.probe,
        "temperature": measured.temperature,
        "plan": prepared.plan.to_dict(),
        "adjustments": [asdict(each) for each in state.adjustments],
        "bad_images": measured.bad,
        "duplicates": state.duplicates,
        "base": prepared.base.to_dict(),
        "environment": environment(prepared.plan.device),
    }
    text = json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False)
    # Escape the bytes of paths that are not valid text.
    write_bytes(folder / RECORD, f"{text}\n".encode(errors="backslashreplace"))
    return json.loads(text)  # type: ignore[no-any-return]
