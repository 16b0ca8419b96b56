"""What the command line calls, and Python too."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from torch import nn

    from zoo.engine.model import Model
    from zoo.engine.plan import Plan
    from zoo.engine.resolve import Options

__all__ = [
    "Model",
    "Run",
    "evaluate",
    "finetune",
    "freeze",
    "get",
    "list_backbones",
    "load",
    "plan",
    "predict",
]


def __getattr__(name: str) -> Any:
    """Import `Model`, which needs torch, when it is first asked for."""
    if name == "Model":
        from zoo.engine.model import Model

        return Model
    raise AttributeError(f"module 'zoo.api' has no attribute {name!r}")


@dataclass(frozen=True)
class Run:
    """A training that is done.

    Args:
        path: the run folder.
        record: the content of its `run.json`.
    """

    path: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """Per split: `loss`, `top1` and `top5` in 0..1, per class, and the confusion matrix."""
        return self.record["metrics"]  # type: ignore[no-any-return]

    def model(self, device: str = "auto") -> Model:
        """Load the model that it left."""
        return load(self.path, device=device)


def list_backbones(
    pattern: str | None = None,
    *,
    source: str | None = None,
    task: str | None = None,
    pretrained: bool | None = None,
) -> builtins.list[Backbone]:
    """Return the backbones that match.

    Args:
        pattern: shell-style wildcards on id or name.
        source: only of this plugin.
        task: only for this task.
        pretrained: only with, or only without, published weights.

    Raises:
        UsageError: no plugin has the name of the source.
    """
    patterns = (pattern,) if pattern else ()
    return load_registry().find(patterns, source=source, task=task, pretrained=pretrained)


def get(name: str) -> Backbone:
    """Return the backbone of an id, a bare name or an alias.

    Raises:
        UnknownBackbone: there is none; carries suggestions.
    """
    return load_registry().get(name)


def freeze(
    model: nn.Module, backbone: Backbone | str, policy: str = "head"
) -> builtins.list[nn.Parameter]:
    """Freeze all that a policy does not train, and return the parameters that it does.

    Afterwards `model.train()` is safe: batch norm and dropout of frozen parts stay in eval mode.

    Args:
        model: a network of that backbone, its heads in place; changed in place.
        backbone: its description or name.
        policy: `head`, `all`, `stages:N` or module patterns.

    Raises:
        UsageError: the policy is malformed, or a pattern matches no module.
    """
    from zoo.models.freeze import freeze as freeze_model

    return freeze_model(model, get(backbone) if isinstance(backbone, str) else backbone, policy)


def _options(given: dict[str, Any]) -> Options:
    from zoo.engine.resolve import Options

    if isinstance(given.get("weights"), Path):
        given = {**given, "weights": str(given["weights"])}
    return Options(**given)


def plan(name: str, **options: Any) -> Plan:
    """Return the plan of a training, touching nothing.

    Args:
        name: id, bare name or alias.
        options: as `finetune` takes them.

    Raises:
        ZooError: something named in the options cannot be used.
    """
    from zoo.engine.progress import Progress
    from zoo.engine.train import load as load_job

    progress = Progress(quiet=True)
    return load_job(name, _options(options), load_registry(), progress, dry_run=True).plan


def finetune(name: str, *, quiet: bool = True, **options: Any) -> Run:
    """Fine-tune a backbone and leave a run folder.

    Args:
        name: id, bare name or alias.
        quiet: say nothing on stderr.
        options: `data`, `classes`, `out`, `train`, `recipe`, `epochs`, `batch_size`, `optimizer`,
            `lr`, `momentum`, `weight_decay`, `schedule`, `weights`, `device`, `precision`, `seed`,
            `workers`, `bad_images`; see `zoo.engine.resolve.Options`.

    Raises:
        ZooError: of the kind that says what was wrong; nothing half-written is left.
        TypeError: an option does not exist.
    """
    from zoo.engine.progress import Progress
    from zoo.engine.train import fit
    from zoo.engine.train import load as load_job

    job = load_job(name, _options(options), load_registry(), Progress(quiet))
    return Run(*fit(job))


def load(path: str | Path, device: str = "auto", precision: str | None = None) -> Model:
    """Load a model file, or the one of a run folder.

    Args:
        path: a `model.safetensors`, or a run folder.
        device: where to compute.
        precision: None for the one it was trained in.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
    """
    from zoo.engine.model import load_model

    return load_model(path, load_registry(), device, precision)


def evaluate(path: str | Path, data: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Measure a model file on a folder of images; see `Model.evaluate`."""
    device = options.pop("device", "auto")
    return load(path, device).evaluate(data, **options)


def predict(
    name: str | Path, images: Any | Iterable[Any], top: int = 5, device: str = "auto"
) -> builtins.list[dict[str, Any]]:
    """Classify images with a model file, a run folder, or a pretrained backbone as it is.

    Args:
        name: a path, or the id, bare name or alias of a backbone.
        images: paths, bytes, open files or PIL images; one or many.
        top: how many classes to give for each.
        device: where to compute.

    Returns:
        For each image `path` and `predictions: [{class, probability}]`, or `path` and `error`.
    """
    from zoo.engine.model import load_pretrained, model_file_at

    if model_file_at(name):
        return load(name, device).predict(images, top)
    return load_pretrained(str(name), load_registry(), device=device).predict(images, top)
