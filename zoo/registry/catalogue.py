"""Catalogues of families: enumerated once per installed version and cached.

Enumerating imports the library, torch included, so it runs in a subprocess, unless the command is
about to import both itself; later commands read one file: a checksum, then JSON.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo import __version__, records, spec
from zoo.errors import INTERRUPTS, BrokenPlugin, EnvironmentProblem
from zoo.files import cache_dir, canonical_json, write_bytes
from zoo.records import restore, to_dict
from zoo.spec import Backbone, Family, Head, Preprocess, Weights, resolve_target

MARK = "zoo-catalogue:"


def _checksum(data: bytes) -> str:
    """Return a checksum against damage, not malice: the cache is the user's own.

    A cryptographic digest would load OpenSSL in every `zoo list`.
    """
    return f"{zlib.crc32(data):08x}{zlib.adler32(data):08x}"


def _source_code(module: str) -> bytes:
    try:
        with redirect_stdout(sys.stderr):  # find_spec imports the parent packages
            module_spec = find_spec(module)
        return Path(module_spec.origin).read_bytes() if module_spec and module_spec.origin else b""
    except INTERRUPTS:
        raise
    except BaseException:
        return b""  # enumerating will report the error


def catalogue_file(family: Family) -> Path:
    """Return the path of a family's cached catalogue, which depends on versions and source code.

    Raises:
        BrokenPlugin: the family's library is not installed.
    """
    try:
        installed = version(family.distribution)
    except (PackageNotFoundError, ValueError) as error:
        raise BrokenPlugin(f"{family.distribution} is not installed") from error
    code = _source_code(family.catalogue.partition(":")[0])
    code += Path(spec.__file__).read_bytes() + Path(records.__file__).read_bytes()
    code += Path(__file__).read_bytes() + __version__.encode()
    digest = _checksum(code + family.catalogue.encode())
    name = re.sub(r"[^\w.\-]", "_", family.distribution)
    return cache_dir() / "catalogues" / f"{name}-{installed}-{digest}.catalogue"


def _enumerate_in_subprocess(family: Family) -> str:
    """Enumerate a family in a subprocess and return its JSON."""
    import subprocess

    from zoo.registry.plugin_file import file_of

    # -P: a timm.py in the current folder must not be imported.
    command = [sys.executable, "-P", "-X", "utf8", "-m", "zoo.registry.catalogue", family.catalogue]
    if file := file_of(family.catalogue.partition(":")[0]):
        command.append(str(file))
    # stdin is that of the command, such as the paths for `zoo predict NAME -`.
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return line[len(MARK) :]
    lines = done.stderr.strip().splitlines()
    reason = lines[-1] if lines else f"exit code {done.returncode}"
    raise BrokenPlugin(f"the catalogue of {family.distribution} cannot be read: {reason}")


def _pack(text: str) -> bytes:
    """Return the content of a catalogue file: a checksum, then JSON."""
    body = text.encode()
    return _checksum(body).encode() + b"\n" + body


def _unpack(data: bytes) -> dict[str, dict[str, Any]]:
    """Parse the content of a catalogue file.

    Raises:
        ValueError: the checksum does not match.
    """
    digest, _, body = data.partition(b"\n")
    if _checksum(body).encode() != digest:
        raise ValueError("the catalogue is damaged")
    return json.loads(body)  # type: ignore[no-any-return]


def _library(family: Family) -> str:
    """Return the name of the package that a family's library is expected to be."""
    return family.distribution.replace("-", "_")


def _enumerate_here(family: Family) -> str | None:
    """Enumerate a family in this process; None where only a subprocess gives the same answer."""
    name = _library(family)
    try:
        spec = find_spec(name)
        installed = Path(str(distribution(family.distribution).locate_file(name)))
        if not spec or not Path(spec.origin or "").is_relative_to(installed):
            return None  # a timm.py in the current folder
        with redirect_stdout(sys.stderr):
            return canonical_json(_enumerate(family.catalogue))
    except INTERRUPTS:
        raise
    except BaseException:
        return None  # the subprocess will report the error


def load_catalogue(
    family: Family, notify: Callable[[str], None], computing: bool = False
) -> dict[str, dict[str, Any]]:
    """Return a family's backbones as plain data by name, enumerating them unless cached.

    Args:
        family: of the catalogue.
        notify: called with one line before a slow step, and where the cache cannot be written.
        computing: whether this process imports torch in any case.

    Raises:
        BrokenPlugin: the library is not installed or cannot be enumerated.
    """
    # A plugin that has imported the library may have added to it.
    untouched = _library(family) not in sys.modules
    path = catalogue_file(family)
    try:
        return _unpack(path.read_bytes())
    except (OSError, ValueError):
        pass
    notify(f"reading the catalogue of {family.distribution}, once for this version; a few seconds")
    here = _enumerate_here(family) if computing and untouched else None
    data = _pack(here or _enumerate_in_subprocess(family))
    try:
        write_bytes(path, data)
    except EnvironmentProblem as error:
        notify(f"the catalogue is not cached, so the next command reads it again: {error}")
    return _unpack(data)


def restore_backbone(plain: Mapping[str, Any], **owner: Any) -> Backbone:
    """Create a `Backbone` from a catalogue entry, without validating it again.

    Every `zoo list` reads thousands of them, and validation would dominate its time.

    Args:
        plain: as `to_dict` returns it.
        owner: the fields that the registry sets, such as `source`.

    Raises:
        KeyError: it is not the description of a backbone.
    """
    values = {**plain, **owner}
    values["heads"] = tuple(restore(Head, head) for head in plain["heads"])
    values["preprocess"] = restore(Preprocess, plain["preprocess"])
    values["weights"] = tuple(map(_restore_weights, plain.get("weights", ())))
    return restore(Backbone, values)


def _restore_weights(plain: Mapping[str, Any]) -> Weights:
    values = dict(plain)
    if values.get("preprocess"):
        values["preprocess"] = restore(Preprocess, values["preprocess"])
    return restore(Weights, values)


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
        target: `"package.module:function"` of the family.
        file: the python file of that module, where it is not installed.
    """
    with redirect_stdout(sys.stderr):  # stdout is for the JSON alone
        if file is not None:
            from zoo.registry.plugin_file import import_file

            import_file(Path(file))
        entries = _enumerate(target)
    print(f"\n{MARK}{canonical_json(entries)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
