"""Run all checks of an installation, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from zoo.diagnosis.check import Check, guarded
from zoo.diagnosis.computing import examine_computing
from zoo.diagnosis.registration import examine_configuration, examine_plugins
from zoo.diagnosis.storage import examine_cache, examine_disk
from zoo.diagnosis.versions import examine_versions


def examine(
    without: Sequence[str] = (), file: Path | None = None, plugins: Sequence[Path] = ()
) -> Iterator[Check]:
    """Yield each check as it is done; what needs torch comes last, and takes seconds.

    Args:
        without: plugins to exclude, as `--no-plugin`.
        file: a registry file, as `--registry`.
        plugins: python files of plugins, as `--plugin`.
    """
    yield from guarded("versions", examine_versions)
    yield from guarded("configuration", partial(examine_configuration, file))
    yield from guarded("plugins", partial(examine_plugins, without, file, plugins))
    yield from guarded("cache", examine_cache)
    yield from guarded("disk", examine_disk)
    yield from guarded("torch", examine_computing)
