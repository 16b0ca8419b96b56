"""Export a model: write it in a format, check what was written, and give it its name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import BrokenBackbone, BrokenPlugin, UsageError
from zoo.files import environment_problem, library_versions, staging_folder
from zoo.inference.export.agreement import as_facts, compare, sample_images
from zoo.inference.export.exporter import Exporter, Run, Source, conversion_errors
from zoo.inference.loading import load_any
from zoo.inference.predictor import Predictor
from zoo.models.hub import HubFile, is_hub_address
from zoo.models.own_file import OwnLocation, locate_model, locate_weights
from zoo.models.plugin_errors import plugin_errors
from zoo.models.provenance import provenance_of
from zoo.records import to_dict
from zoo.registry.formats import find_format
from zoo.registry.registry import Registry
from zoo.spec import ExportFormat, resolve_target
from zoo.temporaries import fsync, publish

FORMAT = 1
WHERE = "--debug shows where"


def export(
    name: str | Path,
    format: str,
    registry: Registry,
    out: Path | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Export a model, and return what `zoo export --json` prints.

    Args:
        name: a run folder, a model file, or the name of a registered model or of a backbone.
        format: name of a registered format.
        registry: of backbones and formats.
        out: path of the file or folder, which does not exist; None for one beside the model file,
            or in the current folder for a name.
        weights: of a backbone, as for `load_any`.

    Raises:
        UsageError: the format is unknown or does not apply to the model, or the path exists.
        BrokenBackbone: the network cannot be converted, or the result differs from it.
        EnvironmentProblem: a library is missing, or the system refuses to write.
        WeightsError: the model cannot be loaded.
    """
    described = find_format(registry, format)
    exporter = load_exporter(described)
    exporter.check_installed()
    location = locate_model(name, registry)
    model = load_any(name, registry, weights, "cpu", "fp32", "torch")
    if location is None and weights is not None:
        location = locate_weights(weights, registry.get(str(name)))
    target = out or _default_path(name, location, format, exporter.suffix)
    if target.exists():
        raise UsageError(f"{target} exists", "give another --out, or remove it")
    source = Source(model, model.backbone.rpartition("/")[2], describe(model, location))
    facts, agreement = _write(exporter, f"format {format!r} of {described.origin}", source, target)
    return {
        "path": str(target),
        "format": format,
        "backbone": model.backbone,
        "task": model.task,
        "bytes": sum(each.stat().st_size for each in _files(target)),
        **facts,
        "agreement": {**agreement, "decision": model.network.task.decision},
    }


def _write(exporter: Exporter, what: str, source: Source, target: Path) -> tuple[Any, Any]:
    """Write and check a model under a temporary name, and rename it.

    Args:
        exporter: of the format.
        what: the format, for messages.
        source: the network.
        target: path of the file or folder.
    """
    try:
        with staging_folder(target.parent) as folder:
            written = folder.path / target.name
            with conversion_errors(f"{what} fails", WHERE):
                facts = exporter.write(source, written)
                run = exporter.load(source, written)
            if not written.exists() or not isinstance(facts, Mapping):
                message = f"{what} returned {facts!r:.80} from write()"
                raise BrokenBackbone(message, "it must write the path, and return a mapping")
            agreement = compare(partial(_run, run, what), source, list(sample_images()))
            for file in _files(written):
                fsync(file)
            publish(written, target)
    except OSError as error:
        # Libraries open files of their own too.
        where = Path(error.filename) if isinstance(error.filename, str) else target
        raise environment_problem(error, where) from error
    return facts, as_facts(agreement)


def _run(run: Run, what: str, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
    """Return the outputs of an exported network by name.

    Raises:
        BrokenBackbone: it fails, or returns something else.
    """
    with conversion_errors(f"{what} cannot run what it wrote", WHERE):
        outputs = run(images)
    if not isinstance(outputs, Mapping):
        message = f"{what} returned a {type(outputs).__name__} for images"
        raise BrokenBackbone(message, "the result of load() must return a mapping of outputs")
    return outputs


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def load_exporter(format: ExportFormat) -> Exporter:
    """Import and instantiate the class of a registered format.

    Raises:
        BrokenPlugin: it cannot be imported, or is not an `Exporter`.
    """
    target = resolve_target(format.target, f"format {format.name!r}")
    with plugin_errors(f"format {format.name!r} cannot be instantiated"):
        exporter = target()
    if not isinstance(exporter, Exporter):
        message = f"{format.target} returns a {type(exporter).__name__}, not an Exporter"
        raise BrokenPlugin(message, f"it is registered by {format.origin}")
    return exporter


def describe(model: Predictor, location: OwnLocation | None = None) -> dict[str, Any]:
    """Return the description of a model that is exported with it.

    Args:
        model: the model.
        location: of its file; None for published weights.
    """
    card, base = model.card, provenance_of(model.module).base
    sha256 = base.sha256
    if location is not None:
        with location.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "format": FORMAT,
        "backbone": model.backbone,
        "task": model.task,
        "classes": list(model.classes),
        "schema": model.schema.to_dict(),
        "preprocess": to_dict(model.preprocess),
        "temperature": card.temperature if card is not None else None,
        "license": card.base_license if card is not None else base.license,
        "sha256": sha256,
        "versions": library_versions("zoo-registry", "torch", "torchvision", "timm"),
    }


def _default_path(name: str | Path, location: OwnLocation | None, format: str, suffix: str) -> Path:
    """Return the path of an export without `--out`."""
    ending = suffix or f"-{format}"
    if is_hub_address(name):
        return Path(f"{HubFile.parse(str(name)).repository.rpartition('/')[2]}{ending}")
    if location is None:
        return Path(f"{str(name).rpartition('/')[2]}{ending}")
    if location.registered is not None:
        return Path(f"{location.registered.name}{ending}")
    return location.path.with_name(f"{location.path.stem}{ending}")
