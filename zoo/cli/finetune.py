"""`zoo finetune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import print_json, print_line, print_table
from zoo.terminal import percent

if TYPE_CHECKING:
    from zoo.engine.plan.plan import Plan
    from zoo.tasks.base import BaseTask


USUAL_AUGMENTATION = "crop,flip"


class Several(click.ParamType):
    """One value, or one for each phase, separated by commas."""

    def __init__(self, kind: Callable[[str], Any], name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read the values."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}, or several separated by commas", param, ctx)


def print_plan(plan: Plan) -> None:
    """Print a plan for people: every value with its reason."""
    print_table(["", "VALUE", "WHY"], plan.rows())


def print_run(folder: Path, run: dict[str, Any], task: BaseTask, options: str) -> None:
    """Print what a run came to, and the command that uses it.

    Args:
        folder: of the run.
        run: content of its `run.json`.
        task: of the backbone.
        options: that every command on it needs.
    """
    if run["probe"] and run["probe"]["accuracy"]:
        folds = run["probe"]["accuracy"]
        shown = f"{percent(min(folds))} to {percent(max(folds))}"
        print_line(f"folds {shown} held out in training, at C = {run['probe']['strength']:.3g}")
    for name, metrics in run["metrics"].items():
        print_line(f"{name:<5} {task.metric_line(metrics, run['chance'])}")
    print_line(f"model {folder / run['model']}")
    print_line(f"use   zoo predict {quote(str(folder))} IMAGE...{options}")


@click.command(cls=ZooCommand, name="finetune")
@click.argument("name")
@click.option(
    "--data",
    metavar="DATA",
    help="A folder, a CSV or TSV of path and label, cifar10:DIR or mnist:DIR; by default a "
    "demonstration on a small set.",
)
@click.option("--classes", type=int, metavar="N", help="Number of classes, checked against data.")
@click.option("--out", metavar="DIR", help="The run folder; by default runs/NAME-1, -2, ...")
@click.option("--train", metavar="POLICY", help="What trains: head, all, stages:N, or patterns.")
@click.option("--recipe", metavar="NAME", help="probe, head, all, or head-then-all.")
@click.option("--head", metavar="HEAD", help="linear, or mlp:4096,dropout=0.5.")
@click.option("--head-at", metavar="PATH", help="Replace this module, and not its last layer only.")
@click.option("--epochs", type=Several(int, "a whole number"), metavar="N", help="Per phase: 5,3.")
@click.option("--batch-size", type=int, metavar="N", help="Images per step.")
@click.option("--micro-batch-size", type=int, metavar="N", help="Images at once, to save memory.")
@click.option("--optimizer", metavar="NAME", help="sgd, adam or adamw.")
@click.option("--lr", type=Several(float, "a number"), metavar="X", help="Per phase: 1e-3,1e-4.")
@click.option("--momentum", type=float, metavar="X", help="For sgd.")
@click.option("--weight-decay", type=float, metavar="X")
@click.option("--schedule", metavar="NAME", help="constant, step:7,0.1 or cosine:0.1.")
@click.option(
    "--augment",
    metavar="WHAT",
    is_flag=False,
    flag_value=USUAL_AUGMENTATION,
    help=f"Change training images at random: {USUAL_AUGMENTATION}, or what is named of crop, flip, "
    "vflip, rotate, color, trivial, erase.",
)
@click.option("--views", type=int, metavar="K", help="Keep K augmented views of each image.")
@click.option("--input-size", type=int, metavar="N", help="Pixels that the network sees.")
@click.option("--in-chans", type=int, metavar="N", help="Channels that it sees; 1 for grey.")
@click.option("--weights", default="auto", show_default=True, help="auto, none, a tag, or a file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option("--seed", type=int, metavar="N", help="Of all randomness; by default 0.")
@click.option("--workers", type=int, metavar="N", help="Processes that decode images.")
@click.option("--cache-images", is_flag=True, default=None, help="Decode each image once.")
@click.option("--bad-images", metavar="WAY", help="error or skip; by default error.")
@click.option("--dry-run", is_flag=True, help="Print the plan with reasons, and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print run.json, or the plan, as JSON.")
@click.option("--quiet", is_flag=True, help="Only the result.")
@click.pass_obj
def command(
    settings: Settings, name: str, dry_run: bool, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Fine-tune the backbone NAME: load pretrained weights, replace its head, train.

    --data is a folder of class folders, of which a part is held out to validate; a folder with
    train/, val/ and maybe test/; a CSV or TSV file with path, label and maybe split; or cifar10:DIR
    or mnist:DIR as torchvision keeps them. Plain `zoo finetune` finds the best head for frozen
    features at once; --epochs trains it epoch by epoch.
    """
    from zoo.engine.plan.plan import LBFGS
    from zoo.engine.plan.resolve import Options
    from zoo.engine.run.finetune import fit, load
    from zoo.terminal import Progress, leading

    progress = Progress(quiet)
    job = load(name, Options(**options), settings.registry(), progress, dry_run)
    if dry_run and leading():
        print_json(job.plan.to_dict()) if as_json else print_plan(job.plan)
    if dry_run:
        return
    plan = job.plan
    first = ", then ".join(
        f"{p.policy} to its optimum"
        if p.optimizer == LBFGS
        else f"{p.policy} for {p.epochs} epochs"
        for p in plan.phases
    )
    folder, run = fit(
        job,
        lambda made: progress.notice(
            f"{plan.backbone}, weights {plan.weights}, {plan.device} {plan.precision}: "
            f"train {first}, into {made}"
        ),
    )
    if not leading():
        return
    print_json(run) if as_json else print_run(folder, run, job.task, settings.naming_backbones())
