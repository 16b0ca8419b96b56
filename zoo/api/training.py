"""Train: the plan, the training, and the check of its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from zoo.options.arguments import check_arguments, names_arguments
from zoo.options.docstring import documents_options
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.data.inspection import DataReport
    from zoo.engine.plan.plan import Plan
    from zoo.inference.predictor import Predictor as Model
    from zoo.options.given import NameOrPath, TrainingOptions, UserColumns
    from zoo.results import Metrics


@dataclass(frozen=True)
class Run:
    """The result of a training.

    Args:
        path: the run folder.
        record: the content of its `run.json`.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)

    @property
    def metrics(self) -> dict[str, Metrics]:
        """Metrics by split, as the task reports them, such as `loss` and `top1`."""
        return self.record["metrics"]  # type: ignore[no-any-return]

    def __fspath__(self) -> str:
        """Return the path of the folder: a run is a path wherever one is expected."""
        return str(self.path)

    def model(self, device: str = "auto") -> Model:
        """Load the trained model."""
        from zoo.api.inference import load

        return load(self.path, device=device)


@names_arguments
def plan(name: NameOrPath | Backbone | None = None, **options: Unpack[TrainingOptions]) -> Plan:
    """Return the plan of a training, without downloading, writing or training.

    Args:
        name: id, bare name or alias, or a backbone of the registry; or a model file or run folder
            to go on from.
        options: as for `finetune`.

    Raises:
        ZooError: an option cannot be used.
    """
    from zoo.engine.run.prepare import prepare, read_options
    from zoo.terminal import Progress

    progress = Progress(quiet=True)
    given = read_options(**options)
    return prepare(_name_of(name), given, load_registry(), progress, dry_run=True).plan


@names_arguments
@documents_options
def finetune(
    name: NameOrPath | Backbone | None = None,
    *,
    quiet: bool = True,
    **options: Unpack[TrainingOptions],
) -> Run:
    """Fine-tune a backbone, and write a run folder.

    SIGINT and SIGTERM first write a checkpoint, if a training by epochs has begun, and then do what
    they did before; a second signal does that at once.

    Args:
        name: id, bare name or alias, or a backbone of the registry; or a model file or run folder
            to go on from; None with `resume`.
        quiet: write nothing to stderr.
        options: of the training, listed below. Options given as text also accept values:
            `train=zoo.options.Policy("stages", stages=2)` for `train="stages:2"`.
            {options}

    Raises:
        ZooError: a subclass for each kind of error; no partial files of zoo's own remain.
        TypeError: an option does not exist.
    """
    from zoo.engine.run.finetune import fit
    from zoo.engine.run.prepare import prepare, read_options
    from zoo.engine.run.resume import finished_record
    from zoo.terminal import Progress

    given = read_options(**options)
    if (record := finished_record(given)) is not None:
        return Run(Path(str(given.resume)), record)
    result = fit(prepare(_name_of(name), given, load_registry(), Progress(quiet)))
    return Run(result.path, result.record)


def _name_of(name: NameOrPath | Backbone | None) -> str | None:
    return None if name is None else name_of(name)


@names_arguments
def check(
    data: Any,
    task: str | None = None,
    *,
    classes: int | None = None,
    columns: UserColumns | None = None,
    quiet: bool = True,
) -> DataReport:
    """Check a data set without training on it: read every image.

    Args:
        data: as for `finetune`.
        task: name of the one that reads it; by default by its layout, else image classification.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table, as for `finetune`.
        quiet: write nothing to stderr.

    Returns:
        Counts, sizes, formats, duplicates and notices; `bad`: reasons by path of images that cannot
        be read, which would stop a training.

    Raises:
        UsageError: no plugin registers the task.
        DataError: the data cannot be opened.
    """
    from zoo.options.columns import read_columns
    from zoo.tasks.inspection import check_data
    from zoo.terminal import Progress

    check_arguments(classes=classes)
    return check_data(
        data,
        load_registry(),
        Progress(quiet),
        task=task,
        classes=classes,
        columns=None if columns is None else read_columns(columns),
    )
