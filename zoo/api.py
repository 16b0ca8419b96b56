"""The Python interface, re-exported by `zoo`."""

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
    """Import `Model`, which needs torch, on first access."""
    if name == "Model":
        from zoo.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'zoo.api' has no attribute {name!r}")


@dataclass(frozen=True)
class Run:
    """The result of a training.

    Args:
        path: the run folder.
        record: the content of its `run.json`.
    """

    path: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by split, as the task reports them, such as `loss` and `top1`."""
        return self.record["metrics"]  # type: ignore[no-any-return]

    def model(self, device: str = "auto") -> Model:
        """Load the trained model."""
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
        source: name of a plugin.
        task: name of a task.
        pretrained: whether weights are published; None for both.
        license: of the default weights: a kind (`permissive`,
            `copyleft`, `non-commercial`, `custom`, `unknown`) or text (`apache-2.0`, `cc-by-*`).

    Raises:
        UsageError: no plugin is named as the source, or the licence is a misspelt kind.
    """
    patterns = (pattern,) if pattern else ()
    registry = load_registry()
    return registry.find(patterns, source=source, task=task, pretrained=pretrained, license=license)


def get(name: str) -> Backbone:
    """Return the backbone of an id, a bare name, an alias or a name of published weights.

    Args:
        name: as in `list_backbones` or registry.toml; or the publisher's name of weights, such as
            `timm/resnet18.a1_in1k` or `ResNet50_Weights.DEFAULT`, which become the default.

    Raises:
        UnknownBackbone: none has the name; with suggestions.
    """
    return load_registry().get(name)


def freeze(
    model: nn.Module, backbone: Backbone | str | None = None, policy: str | Policy = "head"
) -> builtins.list[nn.Parameter]:
    """Freeze all parameters that a policy does not train, and return those that it trains.

    `model.train()` leaves batch norm and dropout of frozen modules in eval mode.

    Args:
        model: a network of the backbone, with its heads replaced, also in a wrapper of torch;
            changed in place.
        backbone: its description or name; None for a network built by zoo. `head`, `all` or
            `stages:N` here is the policy, as in `freeze(model, "head")`.
        policy: the parameters to train, also as text: `head`, `all`, `stages:N` or module patterns.

    Raises:
        UsageError: the policy is malformed, or a pattern matches no module.
        UnknownBackbone: no backbone has the name.
    """
    from zoo.models.freeze import freeze as freeze_model

    if isinstance(backbone, str) and backbone.partition(":")[0] in ("head", "all", "stages"):
        if policy != "head":
            raise UsageError(f"two policies: {backbone!r} and {policy!r}", "give one")
        policy, backbone = backbone, None
    return freeze_model(model, get(backbone) if isinstance(backbone, str) else backbone, policy)


def features(
    model: Model | nn.Module | str | Path,
    images: Any,
    backbone: Backbone | str | None = None,
    *,
    batch_size: int = 32,
    device: str = "auto",
) -> Tensor:
    """Return the features of images: the input of the network's main head.

    The network runs in eval mode without gradients; its modes are restored afterwards.

    Args:
        model: a loaded model, a network, a model file, a run folder, or the name of a pretrained
            backbone.
        images: as for `Model.predict`; one or many.
        backbone: description or name, for a network not built by zoo.
        batch_size: images per forward pass.
        device: as torch names it, or `auto`; ignored for a loaded model or network.

    Returns:
        `[images, width]` float32 on the CPU, or more dimensions if the head's input has more.

    Raises:
        DataError: an image cannot be read.
        UsageError: the network was not built by zoo, and no backbone is given.
        BrokenBackbone: the head is not called.
    """
    from torch import nn

    from zoo.engine.features.extract import extract_features
    from zoo.engine.runtime.network import Network
    from zoo.inference.loading import load_features
    from zoo.inference.predictor import Predictor
    from zoo.models.provenance import provenance_of
    from zoo.models.wrappers import unwrap
    from zoo.tasks.base import load_task

    if isinstance(model, (str, Path)):
        model = load_features(model, load_registry(), device, "fp32")
    if isinstance(model, Predictor):
        return model.features(images, batch_size)
    if not isinstance(model, nn.Module):
        raise UsageError(f"a {type(model).__name__} has no features", "give a network or a name")
    described = get(backbone) if isinstance(backbone, str) else backbone
    model = unwrap(model)
    made = provenance_of(model, described)
    task = load_task(load_registry().task(made.backbone.task))
    parameter = next(model.parameters())
    network = Network(model, made.backbone.heads, made.preprocess, parameter.device, "fp32", task)
    return extract_features(network, images, batch_size)


def transform(of: Model | nn.Module | Backbone | Preprocess | str) -> Transform:
    """Return the transform of an image into the network's input, for use in a `Dataset`.

    Args:
        of: a loaded model, a network built by zoo, a preprocess, or a backbone or its name, for
            its default weights.

    Returns:
        A function of a path, bytes, an open file or a PIL image that returns
        `[channels, height, width]` float32.

    Raises:
        UsageError: it is none of these, or a network not built by zoo.
    """
    from torch import nn

    from zoo.data.transforms import Transform
    from zoo.models.provenance import provenance_of

    if isinstance(of, str):
        of = get(of)
    if isinstance(of, Backbone):
        return Transform(of.preprocess_for(of.weights[0] if of.weights else None))
    if isinstance(of, nn.Module):
        of = provenance_of(of).preprocess
    preprocess = getattr(of, "preprocess", of)
    if not isinstance(preprocess, Preprocess):
        raise UsageError(f"a {type(of).__name__} has no preprocess", "give a network or a name")
    return Transform(preprocess)


def save(
    model: nn.Module,
    path: str | Path,
    classes: Sequence[str] | Schema,
    backbone: Backbone | str | None = None,
) -> Path:
    """Write a network trained by your own loop as a model file.

    `load`, `predict` and `evaluate` read it like one written by `finetune`.

    Args:
        model: the network, also in a wrapper of torch such as `DistributedDataParallel`.
        path: of the file, `something.safetensors`.
        classes: names in the order of the outputs, or the schema of a task with other targets.
        backbone: description or name, for a network not built by zoo.

    Returns:
        The path.

    Raises:
        UsageError: the number of names is not that of the head's outputs.
        EnvironmentProblem: the file cannot be written; an existing one is unchanged.
    """
    from zoo.engine.run.artifacts import save_module
    from zoo.models.provenance import provenance_of
    from zoo.models.wrappers import unwrap

    described = get(backbone) if isinstance(backbone, str) else backbone
    save_module(unwrap(model), Path(path), classes, provenance_of(model, described))
    return Path(path)


def _name(backbone: str | Path | Backbone) -> str:
    """Return the registered name of a backbone, or a path as text.

    Raises:
        UsageError: it differs from the registered one, so a model file could not name it.
    """
    if isinstance(backbone, (str, Path)):
        return str(backbone)
    name = f"{backbone.id}.{backbone.selected}" if backbone.selected else backbone.id
    if get(name) != backbone:
        hint = "derive it in a registry.toml, or register it in a plugin"
        raise UsageError(f"{backbone.id} differs from the registered backbone", hint)
    return name


def _options(given: dict[str, Any]) -> Options:
    from zoo.engine.run.prepare import read_options

    return read_options(**given)


def plan(name: str | Path | Backbone, **options: Any) -> Plan:
    """Return the plan of a training, without downloading, writing or training.

    Args:
        name: id, bare name or alias, or a backbone of the registry; or a model file or run folder
            to go on from.
        options: as for `finetune`.

    Raises:
        ZooError: an option cannot be used.
    """
    from zoo.engine.run.prepare import prepare
    from zoo.terminal import Progress

    progress = Progress(quiet=True)
    given = _options(options)
    return prepare(_name(name), given, load_registry(), progress, dry_run=True).plan


@documents_options
def finetune(name: str | Path | Backbone, *, quiet: bool = True, **options: Any) -> Run:
    """Fine-tune a backbone, and write a run folder.

    Args:
        name: id, bare name or alias, or a backbone of the registry; or a model file or run folder
            to go on from.
        quiet: write nothing to stderr.
        options: of the training, listed below. Options given as text also accept values:
            `train=zoo.options.Policy("stages", stages=2)` for `train="stages:2"`.
            {options}

    Raises:
        ZooError: a subclass for each kind of error; no partial files of zoo's own remain.
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
        device: as torch names it, or `auto`.
        precision: `fp32` or `bf16`; None for that of the training.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
    """
    from zoo.inference.loading import load_model

    return load_model(path, load_registry(), device, precision)


def evaluate(path: str | Path, data: Any = None, **options: Any) -> dict[str, Any]:
    """Evaluate a model file on a data source.

    Args:
        path: a model file or a run folder.
        data: as for `finetune`; None for the embedded data set.
        options: `device`, and those of `Model.evaluate`: `split`, `batch_size`, `workers`,
            `bad_images`, `metrics`, `columns`.

    Returns:
        As `Model.evaluate`; for classification `loss`, `top1` and `top5` in 0..1, and more.

    Raises:
        WeightsError: the model cannot be loaded.
        DataError: the data cannot be used, or has classes unknown to the model.
    """
    device = options.pop("device", "auto")
    return load(path, device).evaluate(data, **options)


def predict(
    name: str | Path, images: Any | Iterable[Any], top: int = 5, device: str = "auto"
) -> builtins.list[dict[str, Any]]:
    """Predict images with a model file, a run folder, or a pretrained backbone.

    Args:
        name: a path, or the id, bare name or alias of a backbone.
        images: as for `Model.predict`; one or many.
        top: number of classes per image, if the task ranks classes.
        device: as torch names it, or `auto`.

    Returns:
        As `Model.predict`; for classification `path` and `predictions: [{class, probability}]` of
        each image, or `path` and `error`.
    """
    from zoo.inference.loading import load_pretrained, model_file_at

    if model_file_at(name):
        return load(name, device).predict(images, top)
    return load_pretrained(str(name), load_registry(), device=device).predict(images, top)
