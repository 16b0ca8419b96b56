"""Write reports on trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UsageError
from zoo.options.arguments import check_arguments, names_arguments
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.options.given import FilePath


@names_arguments
def report(run: FilePath | Sequence[FilePath], out: FilePath | None = None) -> Path:
    """Write the report of a run again, or one of several, and return the path of the HTML file.

    Args:
        run: a run folder, or what `finetune` returned; or several of either, side by side.
        out: path of the report; by default `report.html` in the folder, and of several
            `comparison.html` in the current folder.

    Raises:
        UsageError: a folder is not that of a finished training, or is given twice.
        WeightsError: a file of a run is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    from zoo.reporting.write import report as write

    check_arguments(out=out)
    several = run if isinstance(run, Sequence) and not isinstance(run, str | bytes) else [run]
    if not several:
        raise UsageError("there is no run", "give a run folder")
    folders = [Path(name_of(each)) for each in several]
    result = write(folders, load_registry(), None if out is None else Path(out))
    return Path(result["path"])
