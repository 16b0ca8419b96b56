"""Write reports on trainings."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.options.arguments import names_arguments
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.api.training import Run
    from zoo.options.given import FilePath


@names_arguments
def report(runs: FilePath | Run | Iterable[FilePath | Run], out: FilePath | None = None) -> Path:
    """Write the report of a run again, or compare several runs; return the path of the HTML file.

    Args:
        runs: a run folder or what `finetune` returned, or several.
        out: path of the report; by default `report.html` in the folder of a single run.

    Raises:
        UsageError: a folder is not that of a finished training, or several are given without `out`.
        WeightsError: a file of a run is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    from zoo.api.training import Run
    from zoo.reporting.write import report as write

    several = [runs] if isinstance(runs, (str, PathLike, Run)) else list(runs)
    folders = [each.path if isinstance(each, Run) else Path(each) for each in several]
    result = write(folders, load_registry(), None if out is None else Path(out))
    return Path(result["path"])
