"""`zoo import`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from shlex import quote

import click

from zoo.cli.complete import complete_backbone
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option, out_option, quiet_option
from zoo.cli.output import print_json, print_line
from zoo.errors import UsageError


def _read_classes(file: Path | None) -> list[str] | None:
    """Return the lines of a file of class names.

    Raises:
        UsageError: it cannot be read, or a name is repeated.
    """
    if file is None:
        return None
    try:
        names = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        hint = "give a text file with a class per line"
        raise UsageError(f"--classes {file} cannot be read: {error}", hint) from error
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"--classes {file} names {min(repeated)!r} twice", "name each class once")
    return names


@click.command(cls=ZooCommand, name="import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "name",
    metavar="NAME",
    shell_complete=complete_backbone,
    help="The backbone whose weights these are.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file with a class per line, in the order of the outputs.",
)
@out_option("PATH", "A .safetensors file. [default: FILE with this suffix]")
@json_option
@quiet_option
@click.pass_obj
def command(
    settings: Settings,
    source: Path,
    name: str | None,
    classes: Path | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Convert a .pth, .pt, .bin or .ckpt FILE of tensors to safetensors.

    FILE is opened without running code, in a process with limited memory. With --as, the result is
    a model file for `zoo predict` and `zoo finetune`; without, a state dict for --weights.
    """
    from zoo.engine.run.importing import import_weights
    from zoo.terminal import Progress

    if classes is not None and name is None:
        raise UsageError("--classes requires the backbone", "give it with --as NAME")
    registry = settings.registry()
    backbone = None if name is None else registry.get(name)
    imported = import_weights(source, registry, out, backbone, _read_classes(classes))
    progress = Progress(quiet)
    for notice in imported.notices:
        progress.notice(f"{source}: {notice}")
    if as_json:
        paths = {"path": str(imported.path), "source": str(imported.source)}
        print_json({**asdict(imported), **paths})
        return
    path, options = quote(str(imported.path)), settings.backbone_options()
    print_line(f"read  {source}, {imported.tensors:,} tensors, sha256 {imported.source_sha256}")
    print_line(f"wrote {imported.path}, sha256 {imported.sha256}")
    use = f"zoo predict {path} IMAGE..."
    if imported.backbone is None:
        use = f"zoo finetune {name or 'NAME'} --weights {path} --data DATA"
    print_line(f"use   {use}{options}")
