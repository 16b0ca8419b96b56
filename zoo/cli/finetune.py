"""`zoo finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zoo.cli.complete import complete_model
from zoo.cli.group import Settings
from zoo.cli.options import QUIET
from zoo.cli.output import print_json, print_line, print_table
from zoo.cli.sections import SectionedCommand, SectionedOption, given_options, training_options
from zoo.cli.summary import LINES, REPORT, fitting, height
from zoo.errors import counted
from zoo.terminal import percent

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.engine.plan.plan import Plan
    from zoo.tasks.base import BaseTask


def print_plan(plan: Plan) -> None:
    """Print a plan as a table: each value with its reason."""
    print_table(["", "VALUE", "REASON"], plan.rows())


def print_run(folder: Path, run: dict[str, Any], task: BaseTask, options: str) -> None:
    """Print the summary of a run, in at most 24 lines: how good it is, where it fails, its files.

    Args:
        folder: of the run.
        run: content of its `run.json`.
        task: of the backbone.
        options: that a later command needs to resolve the backbone.
    """
    from shlex import quote

    before, after = [], [f"model {folder / run['model']}"]
    if run["probe"] and run["probe"]["accuracy"]:
        folds = run["probe"]["accuracy"]
        how = f"{percent(min(folds))} to {percent(max(folds))} in cross-validation on"
        if len(folds) == 1:  # of a ridge regression
            how = f"{percent(folds[0])} in leave-one-out cross-validation on"
        strength = run["probe"]["strength"]
        before.append(f"folds {how} the training images, C = {strength:.3g}")
    for name, metrics in run["metrics"].items():
        chance = metrics.get("chance", run["chance"])
        before.append(f"{name:<5} {task.metric_line(metrics, chance)}")
    if (folder / REPORT).exists():
        after.append(f"report {folder / REPORT}")
    after.append(f"use   zoo predict {quote(str(folder))} IMAGE...{options}")
    room = LINES - height([*before, *after])
    for line in [*before, *fitting(_summary_lines(folder, task), room), *after]:
        print_line(line)


def _summary_lines(folder: Path, task: BaseTask) -> list[str]:
    """Return what the task summarizes of a run; nothing where its files cannot be read again."""
    from zoo.errors import ZooError
    from zoo.reporting.load import read_run

    try:
        run, _ = read_run(folder)
    except ZooError:
        return []
    return [f"{label:<5} {text}" for label, text in task.summary_lines(run)]


def _output_flag(*names: str, text: str) -> SectionedOption:
    return SectionedOption(names, section="output", is_flag=True, help=text)


PARAMETERS = [
    click.Argument(["name"], required=False, shell_complete=complete_model),
    *training_options(),
    _output_flag("--dry-run", text="Print the plan with its reasons, and write nothing."),
    _output_flag("--json", "as_json", text="Print run.json and its folder, or the plan, as JSON."),
    _output_flag("--quiet", text=QUIET),
]


@click.command(
    cls=SectionedCommand, name="finetune", params=PARAMETERS, needs="zoo.engine.run.finetune"
)
@click.pass_obj
def command(
    settings: Settings, name: str | None, dry_run: bool, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Fine-tune the backbone NAME: load pretrained weights, replace its head, train.

    NAME may also be a model file or run folder to go on from: the head keeps what it has learnt.
    With --resume RUN, an interrupted training continues, and NAME is not needed.

    For classification, --data is a folder of class folders, where a part is held out for
    validation; a folder with train/, val/ and optionally test/; a table (CSV, TSV, text list, JSON
    lines) of paths, labels and optionally splits; or cifar10:DIR or mnist:DIR as written by
    torchvision. For semantic segmentation it has images/ and masks/ in the place of class folders.
    By default a classifier is solved for as a linear probe on frozen features; with --epochs the
    head is trained by gradient descent, as for other tasks.
    """
    from pathlib import Path

    from zoo.engine.run.finetune import fit
    from zoo.engine.run.prepare import prepare, read_options
    from zoo.engine.run.resume import finished_record
    from zoo.tasks.base import load_task
    from zoo.terminal import Progress, is_rank_zero

    progress, given = Progress(quiet), read_options(**given_options(options))
    if not dry_run and (record := finished_record(given)) is not None:
        progress.notice(f"{given.resume} is finished; --epochs with more than it had goes on")
        if is_rank_zero():
            task = load_task(settings.registry().task(record["task"]))
            _print_result(Path(str(given.resume)), record, task, settings, as_json)
        return
    prepared = prepare(name, given, settings.registry(), progress, dry_run)
    plan = prepared.plan
    if dry_run:
        if is_rank_zero():
            print_json(plan.to_dict()) if as_json else print_plan(plan)
        return
    phases = ", then ".join(
        f"{p.policy} to its optimum" if p.solved else f"{p.policy} for {counted(p.epochs, 'epoch')}"
        for p in plan.phases
    )
    result = fit(
        prepared,
        lambda folder: progress.notice(
            f"{plan.backbone}, weights {plan.weights}, {plan.device} {plan.precision}: "
            f"train {phases}, into {folder}"
        ),
        settings.backbone_options(),
    )
    if not is_rank_zero():
        return
    _print_result(result.path, result.record, prepared.task, settings, as_json)


def _print_result(
    folder: Path, record: dict[str, Any], task: BaseTask, settings: Settings, as_json: bool
) -> None:
    """Print `run.json` with its folder, or its summary."""
    if as_json:
        print_json({"folder": str(folder.absolute()), **record})
    else:
        print_run(folder, record, task, settings.backbone_options())
