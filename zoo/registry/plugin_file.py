"""A plugin that is one python file and not a package, as `--plugin FILE` names it.

Its module is imported under the file's stem, so that `"leafnet:build"` in leafnet.py means what it
says. The file's folder is no place to import from: what else lies there stays what it is.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from types import ModuleType

from zoo.errors import UsageError

_loaded: dict[str, Path] = {}


def file_of(module: str) -> Path | None:
    """Return the file that a module was imported from by `import_file`; None of any other."""
    return _loaded.get(module)


def check_file(file: Path) -> str:
    """Return the name that the plugin in a file gets; nothing is imported.

    Raises:
        UsageError: there is no such file, or its stem cannot be the name of a new module.
    """
    if file.is_dir():
        hint = "give the python file itself; a package is installed, not named"
        raise UsageError(f"--plugin {file} is a folder", hint)
    if not file.exists():
        raise UsageError(f"--plugin {file} does not exist", "give a python file")
    if file.suffix != ".py":
        raise UsageError(f"--plugin {file} is no python file", "give one that ends in .py")
    stem = file.stem
    # A source's name begins like a backbone's, so that its ids can be typed and written down.
    name = re.sub(r"^[^A-Za-z0-9]+", "", stem)
    if not stem.isidentifier() or iskeyword(stem) or not name:
        message = f"--plugin {file} cannot be imported: {stem!r} is no name of a module"
        raise UsageError(message, "name the file in letters, digits and _ only")
    _check_free(stem, file)
    return name


def _check_free(stem: str, file: Path) -> None:
    """Refuse a file that would stand before a module which others may import."""
    if stem in sys.modules:
        origin = getattr(sys.modules[stem], "__file__", None)
    else:
        found = find_spec(stem)
        if found is None:
            return
        origin = found.origin
    if origin is not None and Path(origin).exists() and file.samefile(origin):
        return
    message = f"--plugin {file} would hide the module {stem!r} ({origin or 'a part of Python'})"
    raise UsageError(message, "give the file another name")


def import_file(file: Path) -> ModuleType:
    """Import a python file under its stem, once per process.

    Args:
        file: as `check_file` passed it.

    Returns:
        The module, which is in `sys.modules`.

    Raises:
        Exception: whatever the file raises; it is not in `sys.modules` then.
    """
    stem = file.stem
    if stem in sys.modules:
        return import_module(stem)
    spec = spec_from_file_location(stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(stem, None)
        raise
    _loaded[stem] = file
    return module


def forget_files() -> None:
    """Have every file that `import_file` imported be imported again when it is next asked for."""
    for stem in _loaded:
        sys.modules.pop(stem, None)
    _loaded.clear()
