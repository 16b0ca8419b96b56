"""The descriptions that plugins register: immutable data and `"package.module:function"` strings.

Nothing here imports torch. All that differs between backbones is data in their descriptions.
"""

from zoo.spec.backbone import IMAGE_CLASSIFICATION, ROLES, Backbone, Family, Head
from zoo.spec.export_format import ExportFormat
from zoo.spec.plugin_option import PluginOption
from zoo.spec.preprocess import CROPS, IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Preprocess
from zoo.spec.targets import path_steps, resolve_target
from zoo.spec.task import Task
from zoo.spec.weight_files import LocalWeights, WeightFile
from zoo.spec.weights import AddedWeights, Weights

__all__ = [
    "CROPS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_CLASSIFICATION",
    "INTERPOLATIONS",
    "ROLES",
    "AddedWeights",
    "Backbone",
    "ExportFormat",
    "Family",
    "Head",
    "LocalWeights",
    "PluginOption",
    "Preprocess",
    "Task",
    "WeightFile",
    "Weights",
    "path_steps",
    "resolve_target",
]
