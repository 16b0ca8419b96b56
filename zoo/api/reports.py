"""Write reports on trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.options.arguments import names_arguments
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.api.training import Run
    from zoo.options.given import FilePath


@names_arguments
def report(run: FilePath | Run, out: FilePath | None = None) -> Path:
    """Write the report of a run again, and return the path of the HTML file.

    Args:
        run: a run folder, or what `finetune` returned.
        out: path of the report; by default `report.html` in the folder.

    Raises:
        UsageError: the folder is not that of a finished training.
        WeightsError: a file of a run is damaged.
        EnvironmentProblem: the report cannot be written.
    """
    from zoo.api.training import Run
    from zoo.reporting.write import report as write

    folder = run.path if isinstance(run, Run) else Path(run)
    result = write(folder, load_registry(), None if out is None else Path(out))
    return Path(result["path"])
