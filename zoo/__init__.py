"""zoo: a plugin-based model zoo for transfer learning.

Importing it is cheap: torch is imported when something is built, trained or loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import options, sections, testing
    from zoo.api import (
        FeatureExtractor,
        Model,
        Run,
        check,
        clear_cache,
        configure,
        doctor,
        embed,
        evaluate,
        export,
        features,
        fetch,
        finetune,
        freeze,
        get,
        import_weights,
        list_backbones,
        list_cache,
        list_models,
        list_plugins,
        load,
        plan,
        predict,
        push,
        rank,
        register,
        register_model,
        register_plugin,
        report,
        save,
        transform,
        unregister_model,
    )
    from zoo.errors import (
        BrokenBackbone,
        BrokenPlugin,
        Busy,
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
    from zoo.events import (
        EpochEnded,
        FirstBatchRead,
        FitEnded,
        FitFailed,
        FitStarted,
        ResultsCollected,
        StepEnded,
    )
    from zoo.hookspecs import hookimpl
    from zoo.results import Metrics, Prediction
    from zoo.spec import (
        AddedWeights,
        Backbone,
        ExportFormat,
        Family,
        Head,
        PluginOption,
        Preprocess,
        Task,
        WeightFile,
        Weights,
    )

__version__ = "0.1.0"

# Public modules, imported like names.
_MODULES = ("options", "sections", "testing")

# The modules of the public names, lowest layer first, so that no more is imported than needed.
_DEFINED_IN = ("zoo.errors", "zoo.spec", "zoo.hookspecs", "zoo.events", "zoo.results", "zoo.api")

__all__ = [
    "AddedWeights",
    "Backbone",
    "BrokenBackbone",
    "BrokenPlugin",
    "Busy",
    "DataError",
    "Diverged",
    "EnvironmentProblem",
    "EpochEnded",
    "ExitCode",
    "ExportFormat",
    "Family",
    "FeatureExtractor",
    "FirstBatchRead",
    "FitEnded",
    "FitFailed",
    "FitStarted",
    "Head",
    "Metrics",
    "Model",
    "PluginOption",
    "Prediction",
    "Preprocess",
    "RegistryError",
    "ResultsCollected",
    "Run",
    "StepEnded",
    "Task",
    "UnknownBackbone",
    "UsageError",
    "WeightFile",
    "Weights",
    "WeightsError",
    "ZooError",
    "check",
    "clear_cache",
    "configure",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "features",
    "fetch",
    "finetune",
    "freeze",
    "get",
    "hookimpl",
    "import_weights",
    "list_backbones",
    "list_cache",
    "list_models",
    "list_plugins",
    "load",
    "options",
    "plan",
    "predict",
    "push",
    "rank",
    "register",
    "register_model",
    "register_plugin",
    "report",
    "save",
    "sections",
    "testing",
    "transform",
    "unregister_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first accessed."""
    if name in _MODULES:
        return import_module(f"zoo.{name}")
    if name in __all__:
        for module in map(import_module, _DEFINED_IN):
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
