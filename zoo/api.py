"""What the command line calls, and Python too."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError
from zoo.options.table import documents_options
from zoo.registry.registry import load_registry
from zoo.spec import Backbone, Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.data.schema import Schema
    from zoo.data.transforms import Transform
    from zoo.engine.plan.options import Options
    from zoo.engine.plan.plan import Plan
    from zoo.inference.predictor import Predictor as Model
    from zoo.options import Policy

__all__ = [
    "Model",
    "Run",
    "evaluate",
    "features",
    "finetune",
    "freeze",
    "get",
    "list_backbones",
    "load",
    "plan",
    "predict",
    "save",
    "transform",
]


def __getattr__(name: str) -> Any:
    """Import `Model`, which needs torch, when it is first asked for."""
    if name == "Model":
        from zoo.inference.predictor import Predictor

        return Predictor
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
        """Per split: what the task's metric reports, such as `loss` and `top1`."""
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
    license: str | None = None,
) -> builtins.list[Backbone]:
    """Return the backbones that match.

    Args:
        pattern: shell-style wildcards on id or name.
        source: only of this plugin.
        task: only for this task.
        pretrained: only with, or only without, published weights.
        license: only those whose default weights have a licence of this kind (`permissive`,
            `copyleft`, `non-commercial`, `custom`, `unknown`) or text (`apache-2.0`, `cc-by-*`).

    Raises:
        UsageError: no plugin has the name of the source, or the licence is a misspelt kind.
    """
    patterns = (pattern,) if pattern else ()
    registry = load_registry()
    return registry.find(patterns, source=source, task=task, pretrained=pretrained, license=license)


def get(name: str) -> Backbone:
    """Return the backbone of an id, a bare name or an alias.

    Args:
        name: as `list_backbones` or registry.toml has it.

    Raises:
        UnknownBackbone: there is none; carries suggestions.
    """
    return load_registry().get(name)


def freeze(
    model: nn.Module, backbone: Backbone | str | None = None, policy: str | Policy = "head"
) -> builtins.list[nn.Parameter]:
    """Freeze all that a policy does not train, and return the parameters that it does.

    Afterwards `model.train()` is safe: batch norm and dropout of frozen parts stay in eval mode.

    Args:
        model: a network of that backbone, its heads in place; changed in place.
        backbone: its description or name; None for a network that zoo built.
        policy: which parameters train, or its text: `head`, `all`, `stages:N` or module patterns.

    Raises:
        UsageError: the policy is malformed, or a pattern matches no module.
    """
    from zoo.models.freeze import freeze as freeze_model

    return freeze_model(model, get(backbone) if isinstance(backbone, str) else backbone, policy)


def features(
    model: Model | nn.Module | str | Path,
    images: Any,
    backbone: Backbone | str | None = None,
    *,
    batch_size: int = 32,
    device: str = "auto",
) -> Tensor:
    """Return what the main head of a network reads of images: the network as a feature extractor.

    The network runs in eval mode without gradients, and its modes are put back.

    Args:
        model: a loaded model, a network, a model file, a run folder, or the name of a pretrained
            backbone.
        images: paths, bytes, open files, PIL images or uint8 arrays `[height, width, 3]`, one or
            many; or a tensor `[images, channels, height, width]`, uint8, or floats as `transform`
            makes them.
        backbone: description or name, for a network that zoo did not build.
        batch_size: images per forward pass.
        device: where to compute; a loaded model or network stays where it is.

    Returns:
        `[images, width]` float32 on the CPU, or more dimensions where the head reads more.

    Raises:
        DataError: an image cannot be read.
        UsageError: zoo did not build the network, and no backbone is named.
        BrokenBackbone: nothing arrives at the head.
    """
    from torch import nn

    from zoo.engine.features.extract import extract_features
    from zoo.engine.runtime.network import Network
    from zoo.inference.loading import load_features
    from zoo.inference.predictor import Predictor
    from zoo.models.provenance import how_made
    from zoo.tasks.base import load_task

    if isinstance(model, (str, Path)):
        model = load_features(model, load_registry(), device, "fp32")
    if isinstance(model, Predictor):
        return model.features(images, batch_size)
    if not isinstance(model, nn.Module):
        raise UsageError(f"no features in a {type(model).__name__}", "give a network or a name")
    described = get(backbone) if isinstance(backbone, str) else backbone
    made = how_made(model, described)
    task = load_task(load_registry().task(made.backbone.task))
    parameter = next(model.parameters())
    network = Network(model, made.backbone.heads, made.preprocess, parameter.device, "fp32", task)
    return extract_features(network, images, batch_size)


def transform(of: Model | nn.Module | Backbone | Preprocess | str) -> Transform:
    """Return the function from a picture to what a network sees, for a `Dataset` of one's own.

    Args:
        of: a loaded model, a network that zoo built, a preprocess, or a backbone or its name,
            which stand for its default weights.

    Returns:
        Called with a path, bytes, an open file or a PIL image, it gives
        `[channels, height, width]` float32.

    Raises:
        UsageError: it is none of these, or a network that zoo did not build.
    """
    from torch import nn

    from zoo.data.transforms import Transform
    from zoo.models.provenance import how_made

    if isinstance(of, str):
        of = get(of)
    if isinstance(of, Backbone):
        return Transform(of.preprocess_for(of.weights[0] if of.weights else None))
    if isinstance(of, nn.Module):
        of = how_made(of).preprocess
    preprocess = getattr(of, "preprocess", of)
    if not isinstance(preprocess, Preprocess):
        raise UsageError(f"no preprocess in a {type(of).__name__}", "give a network or a name")
    return Transform(preprocess)


def save(
    model: nn.Module,
    path: str | Path,
    classes: Sequence[str] | Schema,
    backbone: Backbone | str | None = None,
) -> Path:
    """Write a network that was trained in a loop of one's own as a model file.

    It is what `finetune` writes, so `load`, `predict` and `evaluate` read it.

    Args:
        model: the network.
        path: of the file, `something.safetensors`.
        classes: names in the order of the outputs, or the schema of a task with other targets.
        backbone: description or name, for a network that zoo did not build.

    Returns:
        The path.

    Raises:
        UsageError: the names are not as many as the head has outputs.
        EnvironmentProblem: the system refuses; what was there stays.
    """
    from zoo.engine.run.artifacts import save_module
    from zoo.models.provenance import how_made

    described = get(backbone) if isinstance(backbone, str) else backbone
    save_module(model, Path(path), classes, how_made(model, described))
    return Path(path)


def _name(backbone: str | Backbone) -> str:
    """Return the name that the registry has for a backbone.

    Raises:
        UsageError: it was changed, so that no model file could name it.
    """
    if isinstance(backbone, str):
        return backbone
    if get(backbone.id) != backbone:
        hint = "derive it in a registry.toml, or register it in a plugin"
        raise UsageError(f"{backbone.id} is not as the registry describes it", hint)
    return backbone.id


def _options(given: dict[str, Any]) -> Options:
    from zoo.engine.run.prepare import read_options

    return read_options(**given)


def plan(name: str | Backbone, **options: Any) -> Plan:
    """Return the plan of a training: nothing is downloaded, written or trained.

    Args:
        name: id, bare name or alias, or a backbone of the registry.
        options: as `finetune` takes them.

    Raises:
        ZooError: something named in the options cannot be used.
    """
    from zoo.engine.run.prepare import prepare
    from zoo.terminal import Progress

    progress = Progress(quiet=True)
    given = _options(options)
    return prepare(_name(name), given, load_registry(), progress, dry_run=True).plan


@documents_options
def finetune(name: str | Backbone, *, quiet: bool = True, **options: Any) -> Run:
    """Fine-tune a backbone and leave a run folder.

    Args:
        name: id, bare name or alias, or a backbone of the registry.
        quiet: say nothing on stderr.
        options: of the training, listed below. Where an option is text, its value does too:
            `train=zoo.options.Policy("stages", stages=2)` for `train="stages:2"`.
            {options}

    Raises:
        ZooError: of the kind that says what was wrong; nothing half-written is left.
        TypeError: an option does not exist.
    """
    from zoo.engine.run.finetune import fit
    from zoo.engine.run.prepare import prepare
    from zoo.terminal import Progress

    result = fit(prepare(_name(name), _options(options), load_registry(), Progress(quiet)))
    return Run(result.path, result.record)


def load(path: str | Path, device: str = "auto", precision: str | None = None) -> Model:
    """Load a model file, or the one of a run folder.

    Args:
        path: a `model.safetensors`, or a run folder.
        device: where to compute.
        precision: None for the one it was trained in.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
    """
    from zoo.inference.loading import load_model

    return load_model(path, load_registry(), device, precision)


def evaluate(path: str | Path, data: Any = None, **options: Any) -> dict[str, Any]:
    """Measure a model file on images.

    Args:
        path: a model file or a run folder.
        data: images, as `finetune` takes them; None for the embedded set.
        options: `device`, and what `Model.evaluate` takes: `split`, `batch_size`, `workers`,
            `bad_images`, `metrics`.

    Returns:
        As `Model.evaluate` does: `loss`, `top1` and `top5` in 0..1, and more.

    Raises:
        WeightsError: the model cannot be loaded.
        DataError: the images cannot be used, or are of classes that the model has not.
    """
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
    from zoo.inference.loading import load_pretrained, model_file_at

    if model_file_at(name):
        return load(name, device).predict(images, top)
    return load_pretrained(str(name), load_registry(), device=device).predict(images, top)
