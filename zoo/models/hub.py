"""Models on the Hugging Face hub: `hf:OWNER/NAME`, `hf:OWNER/NAME@REVISION`, `hf:...:FILE`.

Only safetensors are downloaded; `zoo.tensorfile` reads them, as any other file.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.errors import EnvironmentProblem, UsageError, WeightsError
from zoo.files import environment_problem
from zoo.models.download import REFUSED_BY_THE_SYSTEM, check_host
from zoo.models.weight_sources import hub_cache

PREFIX = "hf:"
FILE = "model.safetensors"
SYNTAX = "hf:OWNER/NAME, optionally with @REVISION and :FILE"


class HubFile(NamedTuple):
    """A file of a repository.

    Args:
        repository: `owner/name`.
        file: its path there.
        revision: branch, tag or commit; None for the main branch.
    """

    repository: str
    file: str = FILE
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubFile:
        """Parse an address.

        Raises:
            UsageError: it is none, or the file is not of safetensors.
        """
        part = r"[A-Za-z0-9][\w.-]*"
        pattern = rf"hf:({part}/{part})(?:@([\w./-]+))?(?::([\w./-]+))?"
        match = re.fullmatch(pattern, text)
        if match is None:
            raise UsageError(f"{text} is not an address on the Hugging Face hub", SYNTAX)
        repository, revision, file = match.groups()
        if ".." in (file or "").split("/"):
            raise UsageError(f"{text} names a file outside of the repository", SYNTAX)
        if file is not None and not file.endswith(".safetensors"):
            hint = "only safetensors are read from the hub, never a pickle"
            raise UsageError(f"{text} is not a safetensors file", hint)
        return cls(repository, file or FILE, revision)


def is_hub_address(name: str | Path) -> bool:
    """Whether a name is an address on the hub."""
    return str(name).startswith(PREFIX)


def hub_endpoint() -> str | None:
    """Return the address of the hub in the environment; None for the library's default."""
    return os.environ.get("HF_ENDPOINT") or None


def download_from_hub(address: str) -> Path:
    """Download a file into the hub's own cache, or return it from there.

    Raises:
        UsageError: it is no address, or not of a safetensors file.
        WeightsError: there is no such file, or the hub cannot be reached.
        EnvironmentProblem: the cache cannot be written.
    """
    from huggingface_hub import hf_hub_download

    parsed = HubFile.parse(address)
    with hub_errors(f"cannot download {address}"):
        path = hf_hub_download(
            parsed.repository,
            parsed.file,
            revision=parsed.revision,
            cache_dir=hub_cache(),
            endpoint=hub_endpoint(),
        )
    return Path(str(path))


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Convert errors of the hub's library to one line, and find an unreachable host at once.

    Raises:
        WeightsError: the hub refuses, or cannot be reached.
        EnvironmentProblem: the system refuses to write.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    hint = "check the name, the network, and the token (HF_TOKEN, or `hf auth login`)"
    if not constants.HF_HUB_OFFLINE:
        try:
            check_host(hub_endpoint() or constants.ENDPOINT)
        except WeightsError as error:
            raise WeightsError(f"{what}: {error.message}", hint) from error
    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in REFUSED_BY_THE_SYSTEM:
            problem: EnvironmentProblem = environment_problem(error, hub_cache())
            raise problem from error
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{what}: {reason}", hint) from error
