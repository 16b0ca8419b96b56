"""Create a plugin package from the template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from zoo.errors import UsageError
from zoo.options.arguments import names_arguments
from zoo.registry.registry import Registry

TEMPLATE = Path(__file__).parent / "template"
# By path in the package, the file of the template: for every package, and of each kind.
PACKAGE = {"pyproject.toml": "pyproject.toml.in", "{package}/__init__.py": "init.py.in"}
NETWORK = {
    **PACKAGE,
    "README.md": "README.md.in",
    "{package}/plugin.py": "plugin.py.in",
    "{package}/model.py": "model.py.in",
    "tests/test_{source}.py": "test.py.in",
}
OBSERVER = {
    **PACKAGE,
    "README.md": "observer/README.md.in",
    "{package}/plugin.py": "observer/plugin.py.in",
    "tests/test_{source}.py": "observer/test.py.in",
}


def derive_names(name: str) -> dict[str, str]:
    """Return the names of package, source, backbone and class for a plugin name.

    Raises:
        UsageError: the name has characters other than letters, digits, - and _.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", name):
        hint = "use letters and digits, with single - or _ between them"
        raise UsageError(f"{name!r} is not a valid plugin name", hint)
    parts = re.split("[-_]", name.lower())
    if parts[0] == "zoo" and len(parts) > 1:
        del parts[0]  # the prefix is added below
    source = "_".join(parts)
    return {
        "distribution": "-".join(["zoo", *parts]),
        "package": f"zoo_{source}",
        "source": source,
        "backbone": f"{source}_tiny",
        "camel": "".join(part.capitalize() for part in parts),
        "title": " ".join(parts),
    }


def check_available(names: Mapping[str, str], registry: Registry) -> None:
    """Check that no installed plugin, package or module has one of the names.

    Raises:
        UsageError: a name is taken; the message names what has it.
    """
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    hint = "choose another name"
    source, distribution, package = (names[key] for key in ("source", "distribution", "package"))
    for record in registry.host.records:
        if record.name == source:
            raise UsageError(f"{source!r} is already a plugin of {record.home}", hint)
    if source in registry.derived:
        message = f"{source!r} is already a source of derived backbones in a registry.toml"
        raise UsageError(message, hint)
    try:
        taken = f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        if find_spec(package) is None:
            return
        taken = f"a module {package}"
    raise UsageError(f"{taken} is already installed", hint)


def render(names: Mapping[str, str], observer: bool = False) -> dict[str, str]:
    """Return the content of each file by its path in the package.

    Args:
        names: of `derive_names`.
        observer: of a plugin that observes trainings, instead of one with a network.
    """
    from string import Template

    from zoo import __version__

    summary = f"{names['title']} {'observer of trainings' if observer else 'backbones'} for zoo."
    values = {**names, "version": __version__, "summary": summary}
    return {
        path.format_map(names): Template((TEMPLATE / file).read_text("utf-8")).substitute(values)
        for path, file in (OBSERVER if observer else NETWORK).items()
    }


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a new or empty folder: all of them or none.

    Raises:
        UsageError: the folder is not empty, or not a folder.
        EnvironmentProblem: a file cannot be written.
    """
    from zoo.files import environment_problem, staging_folder

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "give a new folder; files are never overwritten"
        raise UsageError(f"--out {folder} is not an empty folder", hint)
    try:
        with staging_folder(folder.parent) as staged:
            for path, text in files.items():
                staged.write(path, text.encode())
            _move(staged.path, folder)
    except OSError as error:
        raise environment_problem(error, folder) from error


def _move(staged: Path, folder: Path) -> None:
    """Move files to their final folder; an existing empty folder is filled, not replaced."""
    from zoo.temporaries import publish

    if not folder.exists():
        publish(staged, folder)
        return
    moved: list[Path] = []
    try:
        for path in sorted(staged.iterdir()):
            moved.append(path.rename(folder / path.name))
    except BaseException:
        for path in moved:
            path.rename(staged / path.name)
        raise


@names_arguments
def new_plugin(
    name: str, out: str | Path | None = None, *, observer: bool = False
) -> tuple[Path, ...]:
    """Create a plugin package with its tests, as `zoo plugins new` does.

    Args:
        name: letters, digits, - and _; the source in the ids of its backbones.
        out: folder of the package; by default `zoo-NAME`.
        observer: create a plugin that observes trainings, instead of one with a small network.

    Returns:
        The files.

    Raises:
        UsageError: the name is taken, or the folder is not empty.
        EnvironmentProblem: a file cannot be written.
    """
    from zoo.registry.registry import load_registry

    return write_package(derive_names(name), load_registry(), out, observer)


def write_package(
    names: Mapping[str, str], registry: Registry, out: str | Path | None, observer: bool
) -> tuple[Path, ...]:
    """Write a package, and return its files.

    Args:
        names: of `derive_names`.
        registry: whose plugins have other names.
        out: folder of the package; by default the name of its distribution.
        observer: as for `new_plugin`.

    Raises:
        UsageError: a name is taken, or the folder is not empty.
        EnvironmentProblem: a file cannot be written.
    """
    check_available(names, registry)
    folder = Path(out or names["distribution"])
    files = render(names, observer)
    # Absolute: `.` has no parent and no name.
    write_all(folder.absolute(), files)
    return tuple(folder / path for path in files)
