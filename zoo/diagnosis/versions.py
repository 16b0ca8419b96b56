"""Check the versions of Python and of the libraries that zoo needs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from zoo import __version__
from zoo.diagnosis.check import ERROR, Check
from zoo.errors import ExitCode

PACKAGE = "zoo-registry"
# Those that are built for one version of another, as torchvision is for one of torch.
CHECKED = (PACKAGE, "torchvision", "timm")
SHOWN = ("torch", "torchvision", "timm", "openvino")


def examine_versions() -> Iterator[Check]:
    """Yield the versions, and each requirement that is not met; imports none of the libraries."""
    known = {name: _version(name) for package in CHECKED for name in _required(package)}
    shown = {name: known.get(name) or _version(name) for name in SHOWN}
    facts = {"zoo": __version__, "python": platform.python_version(), **known, **shown}
    named = ["zoo", "python", *(name for name in SHOWN if facts[name])]
    listed = ", ".join(f"{name} {facts[name]}" for name in named)
    yield Check("versions", listed, facts=dict(sorted(facts.items())))
    for package in CHECKED:
        for name, requirement in _required(package).items():
            if not _met(requirement, known[name]):
                installed = f"{name} {known[name]} is" if known[name] else "it is not"
                problem = f"{package} needs {requirement}, and {installed} installed"
                hint = f"pip install '{requirement}'"
                yield Check("versions", problem, ERROR, hint, ExitCode.ENVIRONMENT)


def _met(requirement: Requirement, installed: str | None) -> bool:
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _required(package: str) -> dict[str, Requirement]:
    """Return the requirements of a package that apply here, by name; none where it is missing."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return {}
    parsed = [Requirement(line) for line in lines]
    return {
        canonicalize_name(each.name): each
        for each in parsed
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }
