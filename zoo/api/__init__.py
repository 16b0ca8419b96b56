"""The Python interface, re-exported by `zoo`; modules that need torch are imported when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.api.diagnosis import doctor
from zoo.api.exports import export, push
from zoo.api.inference import embed, evaluate, load, predict, rank
from zoo.api.lookup import get, list_backbones
from zoo.api.models import list_models, register_model, unregister_model
from zoo.api.networks import features, freeze, save, transform
from zoo.api.process import configure, list_plugins, register, register_plugin
from zoo.api.reports import report
from zoo.api.training import Run, check, finetune, plan
from zoo.api.weights import clear_cache, fetch, import_weights, list_cache

if TYPE_CHECKING:
    from zoo.inference.extractor import FeatureExtractor
    from zoo.inference.predictor import Predictor as Model

__all__ = [
    "FeatureExtractor",
    "Model",
    "Run",
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
    "import_weights",
    "list_backbones",
    "list_cache",
    "list_models",
    "list_plugins",
    "load",
    "plan",
    "predict",
    "push",
    "rank",
    "register",
    "register_model",
    "register_plugin",
    "report",
    "save",
    "transform",
    "unregister_model",
]


def __getattr__(name: str) -> Any:
    """Import a class that needs torch on first access."""
    if name == "FeatureExtractor":
        from zoo.inference.extractor import FeatureExtractor

        return FeatureExtractor
    if name == "Model":
        from zoo.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'zoo.api' has no attribute {name!r}")
