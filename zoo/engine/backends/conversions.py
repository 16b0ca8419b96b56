"""The cache of converted networks: folders with a manifest, which is checked on loading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.cache import ABOUT_FILE, conversions_dir
from zoo.errors import EnvironmentProblem, WeightsError
from zoo.files import (
    canonical_json,
    remove_folder,
    verify_folder,
    write_bytes,
    writing_folder,
)

CHECKS = "checks.json"


class Conversion:
    """A converted network in the cache, which may not be there yet.

    Args:
        facts: everything that determines it.
        about: for listings of the cache.
    """

    def __init__(self, facts: dict[str, Any], about: dict[str, Any]) -> None:
        self.about = about
        name = hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]
        self.path: Path = conversions_dir() / name

    def exists(self) -> bool:
        """Whether it is in the cache; its content is not checked."""
        return (self.path / ABOUT_FILE).exists()

    def verified(self) -> bool:
        """Whether it is in the cache, undamaged; a damaged one is removed."""
        if not self.exists():
            return False
        try:
            verify_folder(self.path)
        except WeightsError:
            with contextlib.suppress(OSError):
                remove_folder(self.path)
            return False
        with contextlib.suppress(OSError):
            os.utime(self.path / ABOUT_FILE)  # the least recently used are removed first
        return True

    def write(self, save: Callable[[Path], None], names: tuple[str, ...]) -> bool:
        """Write it, unless it is there or the disk refuses; return whether it is there.

        Args:
            save: writes the files into a folder.
            names: of the files.
        """
        try:
            with writing_folder(self.path) as folder:
                save(folder.path)
                for name in names:
                    folder.add(name)
                folder.write(ABOUT_FILE, canonical_json(self.about).encode())
        except EnvironmentProblem:
            return self.exists()
        return True

    def checks(self) -> dict[str, str | None]:
        """Return the results of earlier checks, why each failed, by name."""
        try:
            checks = json.loads((self.path / CHECKS).read_bytes())
        except (OSError, ValueError):
            return {}
        return checks if isinstance(checks, dict) else {}

    def record_check(self, name: str, reason: str | None) -> None:
        """Record the result of a check, where the conversion is in the cache."""
        if self.exists():
            with contextlib.suppress(EnvironmentProblem):
                checks = {**self.checks(), name: reason}
                write_bytes(self.path / CHECKS, canonical_json(checks).encode())
