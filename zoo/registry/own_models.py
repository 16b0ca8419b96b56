"""A user's own models by name: one small JSON file for each, in the user's data folder.

A file names a model file and its digest; the model itself stays where it is. Nothing here imports
torch, so that `zoo list --mine` and completion can read the names.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Any

from zoo.errors import EnvironmentProblem, UsageError, WeightsError, did_you_mean
from zoo.files import data_dir, open_regular, parse_json, write_bytes

SUFFIX = ".json"
NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,99}")
MAX_BYTES = 1 << 20
# What `--weights` and the arguments of commands read as something else.
RESERVED = ("auto", "none")
log = logging.getLogger("zoo")


@dataclass(frozen=True)
class OwnModel:
    """A registered model.

    Args:
        name: that commands take.
        path: of the model file, absolute.
        sha256: of the model file.
        backbone: id.
        task: name.
        classes: in the order of the outputs; empty for a task without classes.
        metrics: of the weights in the file, by split and name.
        registered: date and time, ISO 8601.
    """

    name: str
    path: str
    sha256: str
    backbone: str
    task: str
    classes: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, float]]
    registered: str


def models_dir() -> Path:
    """Return the folder of the registered models."""
    return data_dir() / "models"


def check_name(name: str) -> None:
    """Check that a model can have a name.

    Raises:
        UsageError: it has other characters, or means something else.
    """
    if not NAME.fullmatch(name) or name in RESERVED or name.endswith((".safetensors", ".toml")):
        hint = "use letters, digits, '-', '_' and '.', and begin with a letter or a digit"
        raise UsageError(f"no model can be named {name!r}", hint)


def write_own_model(model: OwnModel, replace: bool = False) -> Path:
    """Register a model, and return the path of its file.

    Args:
        model: to register.
        replace: overwrite one of that name.

    Raises:
        UsageError: the name is invalid, or another model has it.
        EnvironmentProblem: the file cannot be written.
    """
    check_name(model.name)
    known = find_own_model(model.name)
    if known is not None and not replace and known.sha256 != model.sha256:
        message = f"{model.name!r} is the name of {known.path}"
        raise UsageError(message, "choose another name, or give --replace")
    path = _file(model.name)
    write_bytes(path, (json.dumps(asdict(model), indent=2) + "\n").encode())
    return path


def remove_own_model(name: str) -> OwnModel:
    """Remove a name, and return what it named; the model file stays.

    Raises:
        UsageError: no model has it.
    """
    model = find_own_model(name)
    if model is None:
        known = [each.name for each in list_own_models()]
        raise UsageError(f"no model is registered as {name!r}", did_you_mean(name, known, ""))
    _file(name).unlink(missing_ok=True)
    return model


def find_own_model(name: str) -> OwnModel | None:
    """Return the model of a name; None without one.

    Raises:
        WeightsError: its file is damaged.
    """
    if not NAME.fullmatch(name):
        return None
    try:
        path = _file(name)
    except EnvironmentProblem:
        return None  # a user without a home has registered nothing
    return _read(path) if path.is_file() else None


def own_model_names() -> list[str]:
    """Return the names of all registered models."""
    try:
        return sorted(each.stem for each in models_dir().iterdir() if each.suffix == SUFFIX)
    except (OSError, EnvironmentProblem):
        return []


def list_own_models() -> list[OwnModel]:
    """Return all registered models by name; damaged files are reported and left out."""
    models = []
    for name in own_model_names():
        try:
            if (model := find_own_model(name)) is not None:
                models.append(model)
        except WeightsError as error:
            log.warning("%s; %s", error.message, error.hint)
    return models


def _file(name: str) -> Path:
    return models_dir() / f"{name}{SUFFIX}"


def _read(path: Path) -> OwnModel:
    hint = f"remove it, and register the model again: zoo register {quote(path.stem)} RUN"
    try:
        with open_regular(path) as file:
            plain: dict[str, Any] = parse_json(file.read(MAX_BYTES))
        known = {item.name for item in fields(OwnModel)}
        model = OwnModel(
            **{key: plain[key] for key in plain.keys() & known} | {"classes": (*plain["classes"],)}
        )
        texts = [model.path, model.backbone, model.task, model.registered, *model.classes]
        numbers = [each for split in model.metrics.values() for each in split.values()]
        if not (
            model.name == path.stem
            and re.fullmatch("[0-9a-f]{64}", model.sha256)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(number, (int, float)) for number in numbers)
        ):
            raise ValueError("a value is invalid")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}", hint) from error
    return model
