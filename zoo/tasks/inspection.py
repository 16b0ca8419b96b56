"""Check a data set without training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.data.inspection import DataReport, inspect_data
from zoo.errors import BrokenPlugin
from zoo.options.arguments import check_arguments
from zoo.options.columns import Columns
from zoo.registry.registry import Registry
from zoo.spec import IMAGE_CLASSIFICATION
from zoo.tasks.base import BaseTask, load_task, supported_options
from zoo.terminal import Progress


def check_data(
    data: Any,
    registry: Registry,
    progress: Progress,
    *,
    task: str | None = None,
    classes: int | None = None,
    columns: Columns | None = None,
) -> DataReport:
    """Read every image of a source as a training would, and return what is known of it.

    Args:
        data: the source, as for a training.
        registry: of tasks.
        progress: display of progress.
        task: name of the one that reads it; by default the one that recognizes its layout, else
            image classification.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table.

    Raises:
        UsageError: no plugin registers the task.
        DataError: the data cannot be opened.
    """
    check_arguments(data=data)
    reader = _find_task(registry, data, task)
    defaults = registry.config.defaults
    opened = reader.open_data(
        data,
        seed=defaults["seed"],
        val_fraction=defaults["val_fraction"],
        classes=classes,
        **supported_options(reader, columns=columns),
    )
    counts = {
        name: reader.class_counts(split, opened.schema) for name, split in opened.splits.items()
    }
    return inspect_data(opened, reader.name, counts, progress.wrap)


def _find_task(registry: Registry, data: Any, name: str | None) -> BaseTask:
    """Return the task of a name, or the one that recognizes the data."""
    exists = isinstance(data, (str, Path)) and Path(data).exists()
    for each in registry.tasks if exists and name is None else ():
        try:
            task = load_task(registry.task(each))
        except BrokenPlugin:
            continue  # another task was not requested
        if task.recognizes(str(data)):
            return task
    return load_task(registry.task(name or IMAGE_CLASSIFICATION))
