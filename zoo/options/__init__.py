"""The options of a training: value types, and one table for CLI, Python and registry files."""

from zoo.options.augmentation import Augmentation
from zoo.options.head_spec import HeadSpec
from zoo.options.option import Option, Range
from zoo.options.policy import Policy
from zoo.options.schedule import Schedule
from zoo.options.table import OPTIONS

__all__ = ["OPTIONS", "Augmentation", "HeadSpec", "Option", "Policy", "Range", "Schedule"]
