"""Locate the published file of weights on this machine.

Nothing here imports torch, opens a weights file or uses a network, so that `zoo show` can report
where weights would come from. `zoo.models.weights` reads and checks what is located.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from zoo.errors import WeightsError
from zoo.files import cache_dir, canonical_json, expand_home, library_versions, open_regular
from zoo.spec import Backbone, WeightFile, Weights

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SHA256_DIGITS = 64
DIGESTS = "SHA256SUMS"


@dataclass(frozen=True)
class Location:
    """Where weights come from.

    Args:
        kind: `installed` (in a package or at a path), `cached` (converted, in zoo's cache),
            `folder` (of `ZOO_WEIGHTS_DIR` or `weights_dir`), `torch` (torch's cache of downloads),
            `hub` (the cache of the Hugging Face hub), `download`, or `missing` (a file that should
            be installed).
        text: the same for people.
        path: of the file; None for a download, or in a package that is not installed.
        sha256: its expected digest, or its first digits; None where it is unknown.
    """

    kind: str
    text: str
    path: Path | None = None
    sha256: str | None = None

    @property
    def local(self) -> bool:
        """Whether the file is on this machine."""
        return self.kind not in (DOWNLOAD.kind, MISSING)


MISSING = "missing"
DOWNLOAD = Location("download", "to be downloaded")


def package_file(file: str) -> Path:
    """Return the path of a file in an installed package, without importing the package.

    Args:
        file: `"package:path"`, or an absolute path.

    Raises:
        WeightsError: the package is not installed.
    """
    if Path(file).is_absolute():
        return Path(file)
    package, _, inside = file.partition(":")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the package {package!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _sha256(data: bytes) -> str:
    # hashlib loads OpenSSL, a fifth of the time of `zoo show`; `random` avoids it in the same way.
    name = "_sha2" if find_spec("_sha2") else "_sha256"  # of Python 3.12 and later, and of 3.11
    module = import_module(name if find_spec(name) else "hashlib")
    return module.sha256(data).hexdigest()  # type: ignore[no-any-return]


def record_file(backbone: Backbone, weights: Weights) -> Path:
    """Return the path of the record with the digests of converted weights."""
    identity: list[Any] = [weights.file, weights.url, weights.hub, weights.digest, weights.convert]
    if weights.convert:
        # A conversion runs library code, and parameter names may change with its version. Derived
        # backbones share the converted weights of their base.
        identity += [backbone.published.id, dict(backbone.kwargs), dict(weights.kwargs)]
        identity += [library_versions("timm", "torchvision")]
    key = _sha256(canonical_json(identity).encode())[:24]
    return cache_dir() / "weights" / f"{key}.json"


def read_record(record: Path) -> dict[str, str]:
    """Return the recorded digests of a conversion; empty where there are none."""
    try:
        recorded = json.loads(record.read_bytes())
        digests = {name: str(recorded[name]) for name in ("source", "converted")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    whole = all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())
    return digests if whole else {}


def converted_file(record: Path) -> Path | None:
    """Return the path of the converted weights of a record; None where there is no record."""
    digests = read_record(record)
    return record.parent / f"{digests['converted']}.safetensors" if digests else None


def url_file(url: str) -> str:
    """Return the file name of a URL."""
    return unquote(PurePosixPath(urlparse(url).path).name)


def hub_files(hub: str) -> tuple[str, tuple[str, ...]]:
    """Return the repository of a hub address, and the files in it that may contain weights."""
    repository, _, filename = hub.partition(":")
    return repository, (filename,) if filename else HUB_FILES


def blob_digest(path: Path) -> str | None:
    """Return the sha256 of a file in the hub's cache, by which blobs of large files are named."""
    blob = path.resolve().name
    return blob if len(blob) == SHA256_DIGITS else None


def _user_cache() -> Path:
    """Return the folder of caches as torch and the hub define it, relative paths included."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))


def torch_checkpoints() -> Path:
    """Return the folder to which torch downloads, `$TORCH_HOME/hub/checkpoints`.

    As `torch.hub.get_dir`, which `torch.hub.set_dir` changes, without importing torch.
    """
    if (hub := sys.modules.get("torch.hub")) is not None:
        return Path(hub.get_dir()) / "checkpoints"
    home = Path(os.environ.get("TORCH_HOME", _user_cache() / "torch"))
    return expand_home(home) / "hub" / "checkpoints"


def hub_cache() -> Path:
    """Return the folder of the Hugging Face hub's cache, as `huggingface_hub.constants` does."""
    home = os.environ.get("HF_HOME", _user_cache() / "huggingface")
    default = os.environ.get("HUGGINGFACE_HUB_CACHE", Path(home) / "hub")
    return expand_home(Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE", default))))


def published_names(weights: Weights) -> tuple[str, ...]:
    """Return the names of a published file: at the end of its URL, or its addresses on the hub."""
    if weights.url is not None:
        return (url_file(weights.url),)
    assert weights.hub is not None
    repository, files = hub_files(weights.hub)
    return (repository, *(f"{repository}:{file}" for file in files))


def weights_dir(backbone: Backbone) -> Path | None:
    """Return the folder of published weights: `ZOO_WEIGHTS_DIR`, else that of `registry.toml`."""
    stated = os.environ.get("ZOO_WEIGHTS_DIR") or backbone.local.folder
    return expand_home(Path(stated)) if stated else None


def read_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of files in a folder, by relative path, as `SHA256SUMS` states them."""
    try:
        with open_regular(folder / DIGESTS) as file:
            lines = file.readall().decode().splitlines()
    except (OSError, ValueError):
        return {}
    matches = (re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line.strip()) for line in lines)
    return {match[2]: match[1] for match in matches if match}


def folder_names(weights: Weights) -> tuple[str, ...]:
    """Return the relative paths that a published file may have in a folder of weights.

    The file name of a URL; `org/repository/file` of the hub.
    """
    if weights.url is not None:
        return (url_file(weights.url),)
    if weights.hub is None:
        return ()
    repository, names = hub_files(weights.hub)
    return tuple(f"{repository}/{name}" for name in names)


def _in_folder(backbone: Backbone, weights: Weights) -> Iterator[Location]:
    if (folder := weights_dir(backbone)) is None:
        return
    stated = {} if weights.digest else read_digests(folder)
    for name in folder_names(weights):
        digest = weights.digest or stated.get(name)
        yield Location("folder", f"in {folder}", folder / name, digest)


def _offers(backbone: Backbone, weights: Weights) -> Iterator[WeightFile]:
    """Yield what plugins offer with the published digest or, without one, the published name."""
    for item in backbone.local.files:
        if weights.digest is not None:
            matches = item.sha256.lower().startswith(weights.digest)
        else:
            matches = item.published in published_names(weights)
        if matches:
            yield item


def _in_packages(backbone: Backbone, weights: Weights) -> Iterator[Location]:
    for item in _offers(backbone, weights):
        with suppress(WeightsError):
            text = f"installed with plugin {item.source}"
            yield Location("installed", text, package_file(item.file), item.sha256)


def missing_files(backbone: Backbone, weights: Weights) -> list[str]:
    """Return a sentence for each location on this machine that should have a copy and has none."""
    sentences = []
    folder, names = weights_dir(backbone), folder_names(weights)
    if folder is not None and not folder.is_dir():
        sentences.append(f"{folder} is not a folder")
    elif folder is not None and not any((folder / name).is_file() for name in names):
        sentences.append(f"{folder} does not contain {' or '.join(names)}")
    for item in _offers(backbone, weights):
        try:
            path = package_file(item.file)
            problem = "" if path.is_file() else f"{path} does not exist"
        except WeightsError as error:
            problem = error.message
        if problem:
            sentences.append(f"plugin {item.source} offers a copy, but {problem}")
    return sentences


def _in_torch_cache(weights: Weights) -> Iterator[Location]:
    """Yield the file that torch downloaded; only a published digest identifies its content."""
    if weights.url is not None and weights.digest is not None:
        folder = torch_checkpoints()
        yield Location("torch", f"in {folder}", folder / url_file(weights.url), weights.digest)


def _in_hub_cache(weights: Weights) -> Iterator[Location]:
    """Yield the files that the hub's library downloaded, the current version of each."""
    if weights.hub is None:
        return
    repository, names = hub_files(weights.hub)
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return
    for name in names:
        path = folder / "snapshots" / revision / name
        text = "in the cache of the Hugging Face hub"
        yield Location("hub", text, path, weights.digest or blob_digest(path))


def published_files(backbone: Backbone, weights: Weights) -> list[Location]:
    """Return the existing copies of a published file, in the order in which they are tried.

    Args:
        backbone: whose weights they are.
        weights: at a URL or on the hub.
    """
    located = [
        *_in_folder(backbone, weights),
        *_in_packages(backbone, weights),
        *_in_torch_cache(weights),
        *_in_hub_cache(weights),
    ]
    return [location for location in located if location.path and location.path.is_file()]


def _installed(file: str, digest: str | None) -> Location:
    try:
        path = package_file(file)
    except WeightsError as error:
        return Location(MISSING, error.message)
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        return Location(MISSING, f"{path} {problem}", path, digest)
    return Location("installed", "installed", path, digest)


def locate(backbone: Backbone, weights: Weights) -> Location:
    """Return where weights come from; nothing is downloaded, and no weights file is opened."""
    installed = _installed(weights.file, weights.digest) if weights.file else None
    if installed is not None and installed.local:
        return installed
    converted = converted_file(record_file(backbone, weights))
    if converted is not None and converted.exists():
        return Location("cached", "in the cache", converted)
    return installed or next(iter(published_files(backbone, weights)), DOWNLOAD)


def local_weights(backbone: Backbone) -> tuple[Weights, Location] | None:
    """Return the first published weights that are on this machine, and where they are.

    Only weights with the outputs of the default ones replace these, and none does where the name of
    the backbone selects them.
    """
    default = backbone.weights[0]
    outputs = default.num_classes, default.features_only
    alike = [each for each in backbone.weights if (each.num_classes, each.features_only) == outputs]
    located = (
        (each, locate(backbone, each)) for each in (alike[:1] if backbone.selected else alike)
    )
    return next((each for each in located if each[1].local), None)
