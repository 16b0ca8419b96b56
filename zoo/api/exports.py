"""Export models to files that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api.lookup import name_of
from zoo.options.arguments import names_arguments
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
        format: `onnx`, or one that a plugin registers.
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

    target, chosen = None if out is None else Path(out), None if weights is None else str(weights)
    return write(name_of(model), format, load_registry(), target, chosen)
