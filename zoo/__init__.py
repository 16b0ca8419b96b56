"""zoo: a plugin-based model zoo for transfer learning.

Importing it is cheap: torch is imported when something is built, trained or loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.api import (
        Model,
        Run,
        evaluate,
        finetune,
        freeze,
        get,
        list_backbones,
        load,
        predict,
    )
    from zoo.errors import (
        BrokenBackbone,
        BrokenPlugin,
        DataError,
        Diverged,
        EnvironmentProblem,
        ExitCode,
        RegistryError,
        UnknownBackbone,
        UsageError,
        WeightsError,
        ZooError,
    )
    from zoo.hookspecs import EpochEnded, FitEnded, FitFailed, FitStarted, hookimpl
    from zoo.spec import Backbone, Family, Head, Preprocess, Weights

__version__ = "0.1.0"

_HOMES = {
    "zoo.api": (
        "Model",
        "Run",
        "evaluate",
        "finetune",
        "freeze",
        "get",
        "list_backbones",
        "load",
        "predict",
    ),
    "zoo.errors": (
        "BrokenBackbone",
        "BrokenPlugin",
        "DataError",
        "Diverged",
        "EnvironmentProblem",
        "ExitCode",
        "RegistryError",
        "UnknownBackbone",
        "UsageError",
        "WeightsError",
        "ZooError",
    ),
    "zoo.hookspecs": ("EpochEnded", "FitEnded", "FitFailed", "FitStarted", "hookimpl"),
    "zoo.spec": ("Backbone", "Family", "Head", "Preprocess", "Weights"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Backbone",
    "BrokenBackbone",
    "BrokenPlugin",
    "DataError",
    "Diverged",
    "EnvironmentProblem",
    "EpochEnded",
    "ExitCode",
    "Family",
    "FitEnded",
    "FitFailed",
    "FitStarted",
    "Head",
    "Model",
    "Preprocess",
    "RegistryError",
    "Run",
    "UnknownBackbone",
    "UsageError",
    "Weights",
    "WeightsError",
    "ZooError",
    "evaluate",
    "finetune",
    "freeze",
    "get",
    "hookimpl",
    "list_backbones",
    "load",
    "predict",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
