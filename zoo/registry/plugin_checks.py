"""What can be checked of a plugin when it is loaded: versions, its name, its hooks, what it names.

Nothing is imported for a check: code that a record names is looked up only in the plugin's own
package, and only as far as that is imported already.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from inspect import (
    getattr_static,
    isasyncgenfunction,
    iscoroutinefunction,
    isfunction,
    isgeneratorfunction,
    unwrap,
)
from typing import Any

import pluggy

from zoo import hookspecs
from zoo.errors import BrokenPlugin, nearest
from zoo.hookspecs import INTERFACE
from zoo.spec import AddedWeights, Backbone, ExportFormat, Family, Task, WeightFile, Weights

Item = Backbone | Family | Task | WeightFile | AddedWeights | ExportFormat

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("zoo_"))
COLLECTING = "zoo_register_"
PACKAGE = "zoo-registry"
STATED = "ZOO_INTERFACE"


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()  # 1.0 is 1
    return tuple(numbers)


def _plain(part: str) -> tuple[bool, str] | None:
    """Parse `>=1.2` or `<1.2`: whether it is a floor, and the version; None for all else."""
    part = part.strip()
    version = part.removeprefix(">=").removeprefix("<").strip()
    same = part.startswith((">=", "<")) and all(n.isdecimal() for n in version.split("."))
    return (part.startswith(">="), version) if same else None


def _satisfied(specifiers: str, installed: str) -> bool:
    """Whether a version satisfies a requirement, without the name of its package."""
    plain = [_plain(part) for part in specifiers.split(",")]
    if all(plain) and all(number.isdecimal() for number in installed.split(".")):
        # Every command reads the requirement of every plugin, and packaging is slow to import.
        version = _release(installed)
        return all((version >= _release(each[1])) == each[0] for each in plain if each)
    from packaging.requirements import Requirement

    requirement = Requirement(f"zoo-registry{specifiers}")
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    return requirement.specifier.contains(installed, prereleases=True)


def check_package(name: str, requires: Iterable[str], installed: str) -> None:
    """Check what is known of a plugin before it is imported.

    Args:
        name: of the plugin, the first half of ids.
        requires: every `Requires-Dist` of its package.
        installed: version of zoo.

    Raises:
        BrokenPlugin: no id can contain the name, or the package requires another version of zoo.
    """
    allowed = all(letter.isalnum() or letter in "_.-" for letter in name)
    if not (allowed and name[:1].isascii() and name[:1].isalnum()):
        problem = "has a name that no id can contain; rename its entry point"
        raise BrokenPlugin(f"plugin {name!r} {problem}, in letters, digits, _ . - only")
    for line in requires:
        package, rest = line[: len(PACKAGE)], line[len(PACKAGE) :].lstrip()
        if package.lower().replace("_", "-").replace(".", "-") != PACKAGE or not rest:
            continue
        if not (rest[0].isalnum() or rest[0] in "-_.") and not _satisfied(rest, installed):
            problem = f"requires {line}, and zoo-registry {installed} is installed"
            raise BrokenPlugin(f"plugin {name!r} {problem}; install versions that fit each other")


def check_interface(name: str, plugin: Any) -> None:
    """Check the version of the plugin interface that a plugin states in `ZOO_INTERFACE`.

    Raises:
        BrokenPlugin: it is none, of another major version, or newer.
    """
    stated = getattr(plugin, STATED, None)
    if stated is None:
        return
    own = INTERFACE.split(".")
    if not isinstance(stated, str) or not re.fullmatch(r"\d+\.\d+", stated):
        problem = f"has {STATED} = {stated!r:.40}, which is no version"
        raise BrokenPlugin(f"plugin {name!r} {problem}; write it like {INTERFACE!r}")
    major, minor = (
        int(part) - int(mine) for part, mine in zip(stated.split("."), own, strict=True)
    )
    if major or minor > 0:
        outdated = "zoo-registry" if major >= 0 else "version of the plugin"
        problem = f"is written for version {stated} of the plugin interface, and this zoo has"
        raise BrokenPlugin(f"plugin {name!r} {problem} {INTERFACE}; install a newer {outdated}")


def check_hooks(manager: pluggy.PluginManager, name: str, plugin: Any) -> None:
    """Check the hooks of a registered plugin.

    Unknown ones are refused unless marked `optionalhook`, like pluggy's `check_pending`; and so are
    functions that have the name of a hook and no mark, which pluggy would never call.

    Raises:
        BrokenPlugin: names everything that is wrong.
    """
    callers = manager.get_hookcallers(plugin) or []
    problems = [*_unmarked(manager, plugin, {caller.name for caller in callers})]
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                problems += _implementation_problems(caller, implementation)
    if not callers and not problems:
        problems.append("implements no hook; mark each of its hooks with @zoo.hookimpl")
    if problems:
        raise BrokenPlugin(f"plugin {name!r} {'; it '.join(problems)}")


def _unmarked(manager: pluggy.PluginManager, plugin: Any, implemented: set[str]) -> Iterator[str]:
    """Yield a sentence for each function that is named like a hook and not marked as one."""
    for name in dir(plugin):
        if not name.startswith("zoo_") or name in implemented:
            continue
        value = getattr(plugin, name, None)
        if not callable(value) or hasattr(value, "zoo_spec"):
            continue
        if manager.parse_hookimpl_opts(plugin, name) is not None:
            continue  # marked with the name of another hook
        hook = name if name in HOOKS else _misspelt(name)
        if hook is not None:
            meant = "" if hook == name else f", which is no hook; did you mean {hook}?"
            yield f"defines {name} without @zoo.hookimpl{meant}"


def _misspelt(name: str) -> str | None:
    """Return the hook that a name misspells; None if it resembles none."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, HOOKS, n=1, cutoff=0.9)), None)


def _implementation_problems(
    caller: pluggy.HookCaller, implementation: pluggy.HookImpl
) -> Iterator[str]:
    hook, plugin = caller.name, implementation.plugin
    if caller.spec is None:
        if not implementation.optionalhook:
            near = nearest(hook, HOOKS)
            yield f"implements the unknown hook {hook}" + (
                f"; did you mean {near[0]}?" if near else ""
            )
        return
    function = unwrap(implementation.function)
    if iscoroutinefunction(function) or isasyncgenfunction(function):
        yield f"implements {hook} as an async function, which zoo would never run; write def"
    elif isgeneratorfunction(function) and not (
        implementation.wrapper or implementation.hookwrapper or hook.startswith(COLLECTING)
    ):
        yield f"yields in {hook}, which would never run; return, or mark it with wrapper=True"
    if isinstance(plugin, type) and isfunction(getattr_static(plugin, function.__name__, None)):
        yield f"is the class {plugin.__name__}, whose {hook} needs an instance; name an instance"


def check_targets(name: str, module: str, items: Sequence[Item]) -> None:
    """Check that the code that a plugin's records name in its own package exists.

    Args:
        name: of the plugin.
        module: its own, already imported.
        items: its records.

    Raises:
        BrokenPlugin: names everything that does not exist.
    """
    package = module.partition(":")[0].partition(".")[0]
    problems: dict[str, None] = {}
    for item in items:
        for target in _targets(item):
            path, _, attribute = target.partition(":")
            if path.partition(".")[0] == package and (problem := _missing(path, attribute)):
                problems.setdefault(f"names {target!r}, and {problem}")
    if problems:
        raise BrokenPlugin(f"plugin {name!r} {'; it '.join(problems)}")


def _targets(item: Item) -> Iterator[str]:
    weights: Sequence[Weights] = ()
    if isinstance(item, Family):
        yield item.catalogue
    elif isinstance(item, (Task, ExportFormat)):
        yield item.target
    elif isinstance(item, Backbone):
        yield item.builder
        weights = item.weights
    elif isinstance(item, AddedWeights):
        weights = (item.weights,)
    for each in weights:
        for target in (each.convert, each.classes):
            if isinstance(target, str):
                yield target


def _missing(path: str, attribute: str) -> str | None:
    """Return what does not exist of a target, as far as that is known without an import."""
    module = sys.modules.get(path)
    if module is not None:
        first, content = attribute.partition(".")[0], vars(module)
        if first in content or "__getattr__" in content:
            return None
        near = nearest(first, [key for key in content if not key.startswith("_")])
        return f"{path} has no {first}" + (f"; did you mean {near[0]}?" if near else "")
    if path.partition(".")[0] != path and path.rpartition(".")[0] not in sys.modules:
        return None  # looking it up would import its package
    return None if _find(path) else f"there is no module {path}"


def _find(path: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(path) is not None
    except (ImportError, ValueError):
        return False
