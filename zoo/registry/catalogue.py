"""Catalogues of families: enumerated once per installed version, kept in the cache.

Enumerating imports the library, torch included, so it happens in a process of its own; whoever
lists afterwards reads one file: a checksum, and the JSON that it belongs to.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo import spec
from zoo.errors import BrokenPlugin, EnvironmentProblem
from zoo.files import cache_dir, canonical_json, write_bytes
from zoo.registry import plain
from zoo.registry.plain import to_dict
from zoo.spec import Backbone, Family, resolve_target

MARK = "zoo-catalogue:"


def _checksum(data: bytes) -> str:
    """Return digits that tell damage, not malice: the cache is the user's own.

    Every `zoo list` comes by here, and a cryptographic digest would have it load OpenSSL.
    """
    return f"{zlib.crc32(data):08x}{zlib.adler32(data):08x}"


def _source_of(module: str) -> bytes:
    try:
        with redirect_stdout(sys.stderr):  # finding a module imports the packages around it
            found = find_spec(module)
        return Path(found.origin).read_bytes() if found and found.origin else b""
    except (Exception, SystemExit):
        return b""  # enumerating will say what is wrong


def catalogue_file(family: Family) -> Path:
    """Return where a family's catalogue is kept: by version, and by the code that makes it.

    Raises:
        BrokenPlugin: the family's library is not installed.
    """
    try:
        installed = version(family.distribution)
    except (PackageNotFoundError, ValueError) as error:
        raise BrokenPlugin(f"{family.distribution} is not installed") from error
    code = _source_of(family.catalogue.partition(":")[0])
    code += Path(spec.__file__).read_bytes() + Path(plain.__file__).read_bytes()
    digest = _checksum(code + family.catalogue.encode())
    name = re.sub(r"[^\w.\-]", "_", family.distribution)
    return cache_dir() / "catalogues" / f"{name}-{installed}-{digest}.catalogue"


def _enumerate_elsewhere(family: Family) -> str:
    """Run the family's enumeration in a process of its own, and return its JSON."""
    # -P: the current folder is no place to import from, whatever is called timm.py there.
    import subprocess

    from zoo.registry.plugin_file import file_of

    command = [sys.executable, "-P", "-X", "utf8", "-m", "zoo.registry.catalogue", family.catalogue]
    if file := file_of(family.catalogue.partition(":")[0]):
        command.append(str(file))
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return line[len(MARK) :]
    said = done.stderr.strip().splitlines()
    reason = said[-1] if said else f"it ended with exit code {done.returncode}"
    raise BrokenPlugin(f"the catalogue of {family.distribution} cannot be read: {reason}")


def _pack(text: str) -> bytes:
    """Return a catalogue as it is kept: what it must hash to, then what it says."""
    body = text.encode()
    return _checksum(body).encode() + b"\n" + body


def _unpack(data: bytes) -> dict[str, dict[str, Any]]:
    """Read a kept catalogue.

    Raises:
        ValueError: it is not as it was written.
    """
    digest, _, body = data.partition(b"\n")
    if _checksum(body).encode() != digest:
        raise ValueError("the catalogue is damaged")
    return json.loads(body)  # type: ignore[no-any-return]


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
        return _unpack(kept.read_bytes())
    except (OSError, ValueError):
        pass
    notify(f"reading the catalogue of {family.distribution}, once for this version; a few seconds")
    data = _pack(_enumerate_elsewhere(family))
    try:
        write_bytes(kept, data)
    except EnvironmentProblem as error:
        notify(f"the catalogue is not kept, so the next command reads it again: {error}")
    return _unpack(data)


def _enumerate(target: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for backbone in resolve_target(target, "a family")():
        if not isinstance(backbone, Backbone):
            raise BrokenPlugin(f"{target} yielded {backbone!r}, not a Backbone")
        if backbone.name in entries:
            raise BrokenPlugin(f"{target} yielded {backbone.name!r} twice")
        entries[backbone.name] = to_dict(backbone)
    return entries


def main(target: str, file: str | None = None) -> None:
    """Enumerate a family and print its backbones as one marked line of JSON.

    Args:
        target: what enumerates it.
        file: the python file that the target's module is, where it is not installed.
    """
    with redirect_stdout(sys.stderr):  # what the library prints is no part of the answer
        if file is not None:
            from zoo.registry.plugin_file import import_file

            import_file(Path(file))
        entries = _enumerate(target)
    print(f"\n{MARK}{canonical_json(entries)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
