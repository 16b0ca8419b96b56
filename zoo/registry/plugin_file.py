"""Plugins in a single python file, as given by `--plugin FILE`.

The module is imported under the file's stem, so that `"leafnet:build"` in leafnet.py resolves to
it. The file's folder is not added to `sys.path`.
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
    """Return the file from which `import_file` imported a module; None for any other module."""
    return _loaded.get(module)


def check_file(file: Path) -> str:
    """Return the name of the plugin in a file, without importing it.

    Raises:
        UsageError: the file does not exist, or its stem cannot name a new module.
    """
    if file.is_dir():
        hint = "give a python file, or install the package"
        raise UsageError(f"--plugin {file} is a folder", hint)
    if not file.exists():
        raise UsageError(f"--plugin {file} does not exist", "give a python file")
    if file.suffix != ".py":
        raise UsageError(f"--plugin {file} is not a python file", "give one that ends in .py")
    stem = file.stem
    # The name of a source starts with a letter or digit, like that of a backbone.
    name = re.sub(r"^[^A-Za-z0-9]+", "", stem)
    if not stem.isidentifier() or iskeyword(stem) or not name:
        message = f"--plugin {file} cannot be imported: {stem!r} is not a module name"
        raise UsageError(message, "name the file in letters, digits and _ only")
    _check_free(stem, file)
    return name


def _check_free(stem: str, file: Path) -> None:
    """Refuse a file that would hide another importable module."""
    if stem in sys.modules:
        origin = getattr(sys.modules[stem], "__file__", None)
    else:
        spec = find_spec(stem)
        if spec is None:
            return
        origin = spec.origin
    if origin is not None and Path(origin).exists() and file.samefile(origin):
        return
    message = f"--plugin {file} would hide the module {stem!r} ({origin or 'a part of Python'})"
    raise UsageError(message, "give the file another name")


def import_file(file: Path) -> ModuleType:
    """Import a python file under its stem, once per process.

    Args:
        file: accepted by `check_file`.

    Returns:
        The module, added to `sys.modules`.

    Raises:
        Exception: raised by the file; its module is removed from `sys.modules`.
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
    """Remove all modules that `import_file` imported, so that it imports them again."""
    for stem in _loaded:
        sys.modules.pop(stem, None)
    _loaded.clear()
