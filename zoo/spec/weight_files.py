"""Copies of published weights on this machine: data, without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError
from zoo.records import validate, with_fields
from zoo.spec.targets import check_package_file


@dataclass(frozen=True)
class WeightFile:
    """A published weights file in an installed package.

    It is used instead of a download for all weights that are published with its digest, whichever
    plugin registers them, and only if its content has that digest.

    Args:
        file: `"package:path"`, or an absolute path.
        sha256: of the file, 64 hexadecimal digits.
        published: the publisher's name, for weights that are published without a digest: of the
            file at the end of its URL, or `org/repository` on the Hugging Face hub, optionally with
            `:file`. None where the digest identifies them.
        source: the plugin's entry-point name; set by the registry.
        origin: description of what registered it; set by the registry.
    """

    file: str
    sha256: str
    published: str | None = None
    source: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        validate(self)
        check_package_file(self.file, "weights have the file")
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", self.sha256):
            hint = "give the 64 hexadecimal digits that `sha256sum FILE` prints"
            raise UsageError(f"the weights file {self.file!r} has sha256 {self.sha256!r}", hint)

    def with_source(self, source: str, origin: str) -> WeightFile:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, origin=origin)


@dataclass(frozen=True)
class LocalWeights:
    """Where the backbones of a registry find copies of published weights.

    Args:
        files: in installed packages.
        folder: the `weights_dir` of a `registry.toml`; None without one.
    """

    files: tuple[WeightFile, ...] = ()
    folder: str | None = None
