"""Networks for one's own code: freeze, features, transform, save."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.api.lookup import described, get
from zoo.errors import UsageError
from zoo.options.arguments import check_arguments, names_arguments
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry
from zoo.spec import Backbone, Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.data.schema import Schema
    from zoo.data.transforms import Transform
    from zoo.inference.predictor import Predictor as Model
    from zoo.options import Policy
    from zoo.options.given import Engine, FilePath, Images, NameOrPath


@names_arguments
def freeze(
    model: nn.Module,
    backbone: Backbone | str | Enum | None = None,
    policy: str | Policy = "head",
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

    if type(backbone) is str and backbone.partition(":")[0] in ("head", "all", "stages"):
        if policy != "head":
            raise UsageError(f"two policies: {backbone!r} and {policy!r}", "give one")
        policy, backbone = backbone, None
    return freeze_model(model, described(backbone), policy)


@names_arguments
def features(
    model: Model | nn.Module | Backbone | NameOrPath,
    images: Images,
    backbone: Backbone | str | Enum | None = None,
    *,
    batch_size: int = 32,
    device: str = "auto",
    engine: Engine | None = None,
) -> Tensor:
    """Return the features of images: the input of the network's main head.

    The network runs in eval mode without gradients; its modes are restored afterwards.

    Args:
        model: a loaded model, a network, a model file, a run folder, or a pretrained backbone or
            its name.
        images: as for `Model.predict`; one or many.
        backbone: description or name, for a network not built by zoo.
        batch_size: images per forward pass.
        device: as torch names it, or `auto`; ignored for a loaded model or network.
        engine: `auto` or the name of one; None for that of a loaded model, else `auto`.

    Returns:
        `[images, width]` float32 on the CPU, or more dimensions if the head's input has more.

    Raises:
        DataError: an image cannot be read.
        UsageError: the network was not built by zoo, and no backbone is given.
        BrokenBackbone: the head is not called.
    """
    import torch
    from torch import nn

    from zoo.engine.runtime.network import Network
    from zoo.inference.extract import extract_features
    from zoo.inference.loading import load_features
    from zoo.inference.predictor import Predictor
    from zoo.models.provenance import provenance_of
    from zoo.models.wrappers import unwrap
    from zoo.tasks.base import load_task

    check_arguments("batch_size", batch_size=batch_size, engine=engine)
    if isinstance(model, (str, PathLike, Enum, Backbone)):
        model = load_features(name_of(model), load_registry(), device, "fp32")
    if isinstance(model, Predictor):
        chosen = engine or model.engine
        return extract_features(model.network, images, batch_size, chosen, model.card)
    if not isinstance(model, nn.Module):
        raise UsageError(f"a {type(model).__name__} has no features", "give a network or a name")
    model = unwrap(model)
    made = provenance_of(model, described(backbone))
    task = load_task(load_registry().task(made.backbone.task))
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.dtype != torch.float32:
        computes = "has no parameters" if parameter is None else f"computes in {parameter.dtype}"
        raise UsageError(f"the network {computes}", "give one of float32, as network.float() is")
    network = Network(model, made.backbone.heads, made.preprocess, parameter.device, "fp32", task)
    return extract_features(network, images, batch_size, engine or "auto")


@names_arguments
def transform(of: Model | nn.Module | Backbone | Preprocess | NameOrPath) -> Transform:
    """Return the transform of an image into the network's input, for use in a `Dataset`.

    Args:
        of: a loaded model, a network built by zoo, a preprocess, a model file or a run folder; or
            a backbone or its name, for its default weights.

    Returns:
        A function of a path, bytes, an open file or a PIL image that returns
        `[channels, height, width]` float32.

    Raises:
        UsageError: it is none of these, or a network not built by zoo.
        WeightsError: the model file cannot be read.
    """
    from torch import nn

    from zoo.data.transforms import Transform
    from zoo.modelfile import parse_card
    from zoo.models.own_file import locate_model
    from zoo.models.provenance import provenance_of

    if isinstance(of, (str, PathLike, Enum)):
        own = locate_model(name_of(of), load_registry())
        of = parse_card(own.path, own.read()).preprocess if own else get(name_of(of))
    if isinstance(of, Backbone):
        return Transform(of.preprocess_for(of.weights[0] if of.weights else None))
    if isinstance(of, nn.Module):
        of = provenance_of(of).preprocess
    preprocess = getattr(of, "preprocess", of)
    if not isinstance(preprocess, Preprocess):
        raise UsageError(f"a {type(of).__name__} has no preprocess", "give a network or a name")
    return Transform(preprocess)


@names_arguments
def save(
    model: nn.Module,
    path: FilePath,
    classes: Sequence[str] | Schema,
    backbone: Backbone | str | Enum | None = None,
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

    save_module(unwrap(model), Path(path), classes, provenance_of(model, described(backbone)))
    return Path(path)
