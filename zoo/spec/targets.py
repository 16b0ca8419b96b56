"""Strings that name code: paths of modules in a network, and objects to import."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from zoo.errors import INTERRUPTS, BrokenPlugin, UsageError, one_line


def path_steps(path: str) -> tuple[str, ...]:
    """Split a module path into its names; `classifier[6]` and `classifier.6` are the same.

    Raises:
        UsageError: the path is empty or malformed.
    """
    if not re.fullmatch(r"\w+(\.\w+|\[\d+\])*", path):
        raise UsageError(f"{path!r} is not a module path", "write it like fc or classifier[6]")
    return tuple(re.findall(r"\w+", path))


def _dotted(name: str) -> bool:
    # Of every description in every command: compiling a pattern would cost more than all checks.
    return all(part.isidentifier() for part in name.split("."))


def check_package_file(file: str, owner: str) -> None:
    """Check the form of a `"package:path"` string, or of an absolute path, without opening it.

    Raises:
        UsageError: it has another form.
    """
    package, _, path = file.partition(":")
    if not (len(file) > 1 and file[0] == "/") and not (
        _dotted(package) and path and path[0] not in "/\0"
    ):
        hint = 'write it as "package:path", or as an absolute path'
        raise UsageError(f"{owner} {file!r}, which is not a path in a package", hint)


def check_target(target: str, owner: str) -> None:
    """Check the form of a `"package.module:attribute"` string, without an import.

    Args:
        target: the string.
        owner: what names it, the start of the message.

    Raises:
        UsageError: it has another form.
    """
    module, _, attribute = target.partition(":")
    if not (_dotted(module) and _dotted(attribute)):
        hint = 'write it as "package.module:function"'
        raise UsageError(f"{owner} {target!r}, which is not code that can be imported", hint)


def object_given(target: object, owner: str) -> UsageError:
    """Return the error for a function or class that is given in place of the string naming it."""
    path = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    module, _, name = path.rpartition(".")
    hint = f'write "{module}:{name}"'
    if not _dotted(path):  # a lambda, an inner function, an object with __call__
        hint = 'define it at the top level of a module, and write "module:function"'
    return UsageError(f"{owner} {target!r:.60}, which is no text", hint)


def resolve_target(target: str, owner: str = "an adapter") -> Any:
    """Import the object that a `"package.module:attribute"` string names.

    Raises:
        BrokenPlugin: the string is malformed, or the import fails.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise BrokenPlugin(f"{owner} names {target!r}", 'write it as "package.module:function"')
    try:
        resolved: Any = import_module(module_name)
        for name in attribute.split("."):
            resolved = getattr(resolved, name)
    except INTERRUPTS:
        raise
    except BaseException as error:  # importing a module can raise anything
        reason = f"which cannot be imported: {one_line(error)}"
        missing = isinstance(error, ModuleNotFoundError)
        hint = "install it, or add its folder to PYTHONPATH" if missing else None
        raise BrokenPlugin(f"{owner} names {target!r}, {reason}", hint) from error
    return resolved
