"""Catalogues of families: enumerated once per installed version, kept in the cache.

Enumerating imports the library, torch included, so it happens in a process of its own; whoever
lists afterwards reads one JSON file.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo import spec
from zoo.errors import BrokenPlugin, EnvironmentProblem
from zoo.files import cache_dir, canonical_json, write_bytes
from zoo.spec import Backbone, Family, resolve_target, to_dict

MARK = "zoo-catalogue:"


def _source_of(module: str) -> bytes:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return b""
    return Path(found.origin).read_bytes() if found and found.origin else b""


def catalogue_file(family: Family) -> Path:
    """Return where a family's catalogue is kept: by version, and by the code that makes it.

    Raises:
        BrokenPlugin: the family's library is not installed.
    """
    try:
        installed = version(family.distribution)
    except PackageNotFoundError as error:
        raise BrokenPlugin(f"{family.distribution} is not installed") from error
    code = _source_of(family.catalogue.partition(":")[0]) + Path(spec.__file__).read_bytes()
    digest = hashlib.sha256(code + family.catalogue.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.\-]", "_", family.distribution)
    return cache_dir() / "catalogues" / f"{name}-{installed}-{digest}.json"


def _enumerate_elsewhere(family: Family) -> dict[str, Any]:
    """Run the family's enumeration in a process of its own."""
    command = [sys.executable, "-m", "zoo.catalogue", family.catalogue]
    done = subprocess.run(command, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line[len(MARK) :])  # type: ignore[no-any-return]
    said = done.stderr.strip().splitlines()
    reason = said[-1] if said else f"it ended with exit code {done.returncode}"
    raise BrokenPlugin(f"the catalogue of {family.distribution} cannot be read: {reason}")


def load_catalogue(family: Family, notify: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return a family's backbones as plain data by name, enumerating them if need be.

    Args:
        family: whose catalogue.
        notify: called with a sentence when there is something to wait for.

    Raises:
        BrokenPlugin: the library is not installed or cannot be enumerated.
    """
    kept = catalogue_file(family)
    try:
        return json.loads(kept.read_bytes())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        pass
    notify(f"reading the catalogue of {family.distribution}, once for this version; a few seconds")
    entries = _enumerate_elsewhere(family)
    try:
        write_bytes(kept, canonical_json(entries).encode())
    except EnvironmentProblem as error:
        notify(f"the catalogue is not kept, so the next command reads it again: {error}")
    return entries


def main(target: str) -> None:
    """Enumerate a family and print its backbones as one marked line of JSON."""
    entries: dict[str, Any] = {}
    for backbone in resolve_target(target, "a family")():
        if not isinstance(backbone, Backbone):
            raise BrokenPlugin(f"{target} yielded {backbone!r}, not a Backbone")
        if backbone.name in entries:
            raise BrokenPlugin(f"{target} yielded {backbone.name!r} twice")
        entries[backbone.name] = to_dict(backbone)
    print(MARK + canonical_json(entries))


if __name__ == "__main__":
    main(sys.argv[1])
