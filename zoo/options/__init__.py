"""The options of a training: value types, and one table for CLI, Python and registry files."""

from typing import TYPE_CHECKING, Any

from zoo.options.option import Option, Range
from zoo.options.table import OPTIONS

if TYPE_CHECKING:
    from zoo.options.augmentation import Augmentation
    from zoo.options.given import TrainingOptions
    from zoo.options.head_spec import HeadSpec
    from zoo.options.policy import Policy
    from zoo.options.schedule import Schedule

__all__ = [
    "OPTIONS",
    "Augmentation",
    "HeadSpec",
    "Option",
    "Policy",
    "Range",
    "Schedule",
    "TrainingOptions",
]


def __getattr__(name: str) -> Any:
    """Import the type of an option's value when it is first used: help only reads the table."""
    if name == "TrainingOptions":
        from zoo.options.given import TrainingOptions

        return TrainingOptions
    for option in OPTIONS:
        if option.value.endswith(f":{name}"):
            return option.value_type
    raise AttributeError(f"module 'zoo.options' has no attribute {name!r}")
