"""Export models to files that other programs run, and push them to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.options.arguments import check_arguments, names_arguments
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.options.given import FilePath, NameOrPath


@names_arguments
def export(
    model: NameOrPath | Backbone,
    format: str = "onnx",
    out: FilePath | None = None,
    *,
    weights: NameOrPath | None = None,
) -> dict[str, Any]:
    """Export a model to a file that other programs run, checked on real images.

    Args:
        model: a run folder, a model file, or the name of a registered model; or a backbone or its
            name.
        format: `onnx`, `timm`, `openvino`, `pt2`, or one that a plugin registers.
        out: path of the file or folder, which does not exist; None for one beside the model file,
            or in the current folder for a name.
        weights: of a backbone, as for `load`.

    Returns:
        `path`, `format`, `backbone`, `task`, `bytes`, facts of the format, `notes`, and
        `agreement` with the network: `images`, `equal_decisions` and `largest_difference`.

    Raises:
        UsageError: the format is unknown or does not apply to the model, or the path exists.
        BrokenBackbone: the network cannot be converted, or the result differs from it.
        EnvironmentProblem: a library is missing, or the system refuses to write.
        WeightsError: the model cannot be loaded.
    """
    from zoo.inference.export.export import export as write

    check_arguments(out=out)
    target, chosen = None if out is None else Path(out), None if weights is None else str(weights)
    return write(name_of(model), format, load_registry(), target, chosen)


@names_arguments
def push(model: NameOrPath, repository: str, *, private: bool = False) -> dict[str, Any]:
    """Push a trained model to the Hugging Face hub, where zoo, timm and transformers load it.

    Args:
        model: a run folder, a model file, or the name of a registered model.
        repository: `OWNER/NAME`; created where it does not exist.
        private: whether a new repository is private.

    Returns:
        `repository`, `url`, `commit`, `files`, `sha256` of the model file, and
        `not_for_timm_because`, the reason why timm cannot load it, or None.

    Raises:
        UsageError: the model is no file of yours, or the repository is no name.
        WeightsError: the model cannot be loaded, or the hub refuses or cannot be reached.
    """
    from zoo.inference.export.push import push as upload

    return upload(name_of(model), repository, load_registry(), private)
