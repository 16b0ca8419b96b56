"""`zoo predict`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.output import print_json, print_line
from zoo.errors import DataError, UsageError


@click.command(cls=ComputingCommand, name="predict")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="For masks and overlays."
)
@click.option("--weights", metavar="TAG", help="Of a backbone: auto (the default) or a tag.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
    """Predict images: their classes, or masks, which --out writes.

    MODEL is a model file, a run folder, or the name of a pretrained backbone, which is then used as
    it is, with its own classes.
    """
    from zoo.inference.loading import load_model, load_pretrained, model_file_at

    registry = settings.registry()
    if not model_file_at(model):
        loaded = load_pretrained(model, registry, "auto" if weights is None else weights, device)
    elif weights is None:
        loaded = load_model(model, registry, device)
    else:
        message = f"--weights {weights} has no meaning for {model}"
        raise UsageError(message, "leave it out; a model file has its own weights")
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
        some = ", ".join(answer["path"] for answer in failed[:3])
        message = f"{len(failed)} of {len(answers)} images cannot be read: {some}"
        others = len(failed) < len(answers)
        raise DataError(message, "the others were predicted" if others else None)
