"""`zoo plugins new`: a plugin package that works at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import print_line
from zoo.errors import UsageError
from zoo.registry.registry import Registry

TEMPLATE = Path(__file__).parent / "template"
FILES = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "{package}/__init__.py": "init.py.in",
    "{package}/plugin.py": "plugin.py.in",
    "{package}/model.py": "model.py.in",
    "tests/test_{source}.py": "test.py.in",
}


def names_of(name: str) -> dict[str, str]:
    """Return every name that a new plugin gets, from the one that was asked for.

    Raises:
        UsageError: it holds what is no letter, digit, - or _.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", name):
        hint = "letters and digits, with single - or _ between them"
        raise UsageError(f"{name!r} is no name for a plugin", hint)
    parts = re.split("[-_]", name.lower())
    if parts[0] == "zoo" and len(parts) > 1:
        del parts[0]  # it will stand in front anyway
    source = "_".join(parts)
    return {
        "distribution": "-".join(["zoo", *parts]),
        "package": f"zoo_{source}",
        "source": source,
        "backbone": f"{source}_tiny",
        "camel": "".join(part.capitalize() for part in parts),
        "title": " ".join(parts),
    }


def check_free(names: Mapping[str, str], registry: Registry) -> None:
    """Refuse names that stand for something else here already.

    Raises:
        UsageError: says what has the name.
    """
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    hint = "choose another name"
    source, distribution, package = (names[key] for key in ("source", "distribution", "package"))
    for record in registry.host.records:
        if record.name == source:
            raise UsageError(f"{source!r} is the name of a plugin of {record.home}", hint)
    if source in registry.derived:
        raise UsageError(f"{source!r} is a source of derived backbones in a registry.toml", hint)
    try:
        taken = f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        if find_spec(package) is None:
            return
        taken = f"a module {package}"
    raise UsageError(f"{taken} is installed already", hint)


def render(names: Mapping[str, str]) -> dict[str, str]:
    """Return the text of every file by its path in the package."""
    from string import Template

    return {
        path.format_map(names): Template((TEMPLATE / file).read_text("utf-8")).substitute(names)
        for path, file in FILES.items()
    }


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a new or empty folder: all of them or none.

    Raises:
        UsageError: it holds something, or is no folder.
        EnvironmentProblem: the system refuses.
    """
    import shutil

    from zoo.files import environment_problem, make_dir

    staged = folder.parent / f".{folder.name}.{os.getpid()}.part"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            hint = "give a new folder; nothing is overwritten"
            raise UsageError(f"--out {folder} is not an empty folder", hint)
        for path, text in files.items():
            make_dir((staged / path).parent)
            (staged / path).write_text(text, encoding="utf-8")
        _move(staged, folder)
    except OSError as error:
        raise environment_problem(error, folder) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _move(staged: Path, folder: Path) -> None:
    """Give files their final place; an empty folder that is there stays the one it is."""
    if not folder.exists():
        staged.rename(folder)
        return
    moved: list[Path] = []
    try:
        for path in sorted(staged.iterdir()):
            moved.append(path.rename(folder / path.name))
    except BaseException:
        for path in moved:
            path.rename(staged / path.name)
        raise


@click.command(cls=ZooCommand, name="new")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The package's folder itself; by default zoo-NAME.",
)
@click.pass_obj
def command(settings: Settings, name: str, out: Path | None) -> None:
    """Write a plugin package named NAME, with a small network that trains at once.

    NAME becomes the source in the ids of its backbones; it has letters, digits, - and _.
    """
    from shlex import quote

    names = names_of(name)
    check_free(names, settings.registry())
    folder = out or Path(names["distribution"])
    files = render(names)
    # Absolute, so that `.` has a parent and a name of its own.
    write_all(folder.absolute(), files)
    for path in files:
        print_line(f"wrote {folder / path}")
    place = quote(str(folder))
    print_line()
    for said, line in (
        ("install", f"pip install -e {place} pytest"),
        ("test", f"pytest {place}"),
        ("use", f"zoo finetune {names['backbone']} --epochs 1"),
    ):
        print_line(f"{said:<8}{line}")
