"""`zoo predict`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import device_option, json_option
from zoo.cli.output import print_json, print_line
from zoo.errors import DataError, UsageError


@click.command(cls=ComputingCommand, name="predict")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of classes per image.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for masks and overlays, of segmentation models.",
)
@click.option(
    "--weights", metavar="TEXT", help="A tag of a backbone, or a model file of it. [default: auto]"
)
@device_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    model: str,
    images: tuple[str, ...],
    top: int,
    out: Path | None,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Predict images with MODEL.

    MODEL is a model file, a run folder, or the name of a backbone, which predicts the classes of
    its published weights.
    """
    from zoo.inference.loading import load_model, load_pretrained, model_file_at

    registry = settings.registry()
    if not model_file_at(model):
        loaded = load_pretrained(model, registry, "auto" if weights is None else weights, device)
    elif weights is None:
        loaded = load_model(model, registry, device)
    else:
        message = f"--weights {weights} does not apply to {model}"
        raise UsageError(message, "a model file has its own weights; omit the option")
    answers = loaded.predict(images, top, out=out)
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            print_line(answer["path"])
            if "predictions" in answer:
                for line in loaded.network.task.prediction_lines(answer):
                    print_line(f"  {line}")
            if "error" in answer:
                print_line(f"  error: {answer['error']}")
    failed = [answer for answer in answers if "error" in answer]
    if failed:
        paths = ", ".join(answer["path"] for answer in failed[:3])
        message = f"{len(failed)} of {len(answers)} images cannot be read: {paths}"
        partial = len(failed) < len(answers)
        raise DataError(message, "the others were predicted" if partial else None)
