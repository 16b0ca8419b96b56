"""Published weights: locate, download, check, convert once, read.

Weights are inside an installed package or at a path (`file`), at an address (`url`) or on the
Hugging Face hub (`hub`). Other formats than a safetensors state dict are converted once into the
cache, where a file is named by its sha256, so that every load can check it. Each file is read once:
a converter is called with a `CheckedPath`, which contains the checked content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import logging
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import getproxies

from zoo.errors import EnvironmentProblem, WeightsError, ZooError
from zoo.files import (
    cache_dir,
    canonical_json,
    environment_problem,
    library_versions,
    make_dir,
    write_bytes,
)
from zoo.modelfile import (
    KEY,
    CheckedPath,
    ModelCard,
    TensorFile,
    check_path,
    read_checkpoint,
    read_file,
    read_tensors,
    tensor_bytes,
)
from zoo.models.plugin_errors import plugin_errors
from zoo.spec import Backbone, Weights, resolve_target

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("zoo")

TIMEOUT = 20.0
REFUSED_BY_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
CHUNK = 1 << 20


def _installed_file(weights: Weights) -> Path:
    assert weights.file is not None
    if Path(weights.file).is_absolute():
        return Path(weights.file)
    package, _, inside = weights.file.partition(":")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the package {package!r} of weights {weights.tag!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _record_file(backbone: Backbone, weights: Weights) -> Path:
    """Return the path of the record with the digests of converted weights."""
    identity: list[Any] = [weights.file, weights.url, weights.hub, weights.digest, weights.convert]
    if weights.convert:
        # A conversion runs library code, and parameter names may change with its version. Derived
        # backbones share the converted weights of their base.
        identity += [backbone.published.id, dict(backbone.kwargs), dict(weights.kwargs)]
        identity += [library_versions("timm", "torchvision")]
    key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:24]
    return cache_dir() / "weights" / f"{key}.json"


def _read_record(record: Path) -> dict[str, str]:
    """Return the recorded digests of a conversion; empty where there are none."""
    try:
        recorded = json.loads(record.read_bytes())
        return {name: str(recorded[name]) for name in ("source", "converted")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _converted_file(record: Path) -> Path | None:
    digests = _read_record(record)
    return record.parent / f"{digests['converted']}.safetensors" if digests else None


def _read_converted(backbone: Backbone, weights: Weights) -> TensorFile | None:
    """Return converted weights from the cache; None where they are missing or damaged."""
    record = _record_file(backbone, weights)
    digests = _read_record(record)
    if not digests:
        return None
    converted = digests["converted"]
    path = record.parent / f"{converted}.safetensors"
    try:
        file = read_tensors(path, converted)
    except WeightsError:
        return None
    _check_model_file(path, file, backbone, weights)
    return replace(file, sha256=digests["source"])


def availability(backbone: Backbone, weights: Weights) -> str:
    """Return the source of weights: `installed`, `cached` or `download`.

    Nothing is downloaded, and no weights file is opened.
    """
    if weights.file is not None:
        return "installed"
    converted = _converted_file(_record_file(backbone, weights))
    return "cached" if converted is not None and converted.exists() else "download"


def _check_reachable(address: str) -> None:
    """Raise at once where a host cannot be resolved, rather than after a library's long retries."""
    if getproxies().keys() & {"http", "https", "all"}:
        return  # the proxy resolves it
    host = urlparse(address).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise WeightsError(f"cannot reach {host}: {error.strerror or error}") from error


def check_reachable(weights: Weights) -> None:
    """Look up whether weights that are not at hand could be downloaded; nothing is fetched.

    Raises:
        WeightsError: their host has no address.
    """
    if weights.url is not None:
        _check_reachable(weights.url)
    elif weights.hub is not None:
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE and _in_hub_cache(weights.hub) is None:
            _check_reachable(constants.ENDPOINT)


def _copy(response: http.client.HTTPResponse, target: Path, label: str) -> None:
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    expected = int(length) if length and length.isdecimal() else None
    progress = tqdm(
        total=expected, unit="B", unit_scale=True, desc=label, disable=not sys.stderr.isatty()
    )
    received = 0
    with target.open("wb") as file, progress:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
    if expected is not None and received != expected:
        raise WeightsError(f"the download ended after {received:,} of {expected:,} bytes")


@contextlib.contextmanager
def _downloaded(url: str) -> Iterator[Path]:
    """Download a file into a temporary folder of the cache, removed after the block."""
    if urlparse(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url} is not an http or https address")
    _check_reachable(url)
    name = Path(urlparse(url).path).name
    with tempfile.TemporaryDirectory(dir=make_dir(cache_dir() / "downloads")) as folder:
        target = Path(folder) / name
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "zoo-registry"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                _copy(response, target, name)
        except urllib.error.HTTPError as error:
            raise WeightsError(f"{url} answered {error.code} {error.reason}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise WeightsError(f"cannot download {url}: {reason}") from error
        except ConnectionError as error:
            raise WeightsError(f"the download of {url} broke off: {error}") from error
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {target}: {error.strerror}") from error
        yield target


def _hub_names(hub: str) -> tuple[str, list[str]]:
    """Return the repository of a hub address, and the files in it that may contain weights."""
    repository, _, filename = hub.partition(":")
    return repository, [filename] if filename else ["model.safetensors", "pytorch_model.bin"]


def _in_hub_cache(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, names = _hub_names(hub)
    cached = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in cached if isinstance(path, str)), None)


def _from_hub(hub: str) -> tuple[Path, str | None]:
    """Return a hub file, from the hub's own cache or downloaded, and its sha256 where known."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if (cached := _in_hub_cache(hub)) is not None:
        return _with_blob_digest(cached)
    repository, names = _hub_names(hub)
    if not constants.HF_HUB_OFFLINE:
        _check_reachable(constants.ENDPOINT)
    problem = ""
    for name in names:
        try:
            return _with_blob_digest(Path(hf_hub_download(repository, name)))
        except (HfHubHTTPError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in REFUSED_BY_THE_SYSTEM:
                raise environment_problem(error, Path(constants.HF_HUB_CACHE)) from error
            problem = problem or " ".join(str(error).split())[:160]
    raise WeightsError(f"cannot download {hub} from the Hugging Face hub: {problem}")


def _with_blob_digest(path: Path) -> tuple[Path, str | None]:
    """Return a file of the hub's cache with its sha256, by which blobs of large files are named."""
    blob = path.resolve().name
    return path, blob if len(blob) == 64 else None


@contextlib.contextmanager
def _source_file(weights: Weights) -> Iterator[tuple[Path, str | None]]:
    """Yield the path of the published file and its expected sha256, if known."""
    if weights.file is not None:
        yield _installed_file(weights), weights.digest
    elif weights.url is not None:
        with _downloaded(weights.url) as path:
            yield path, weights.digest
    else:
        assert weights.hub is not None
        path, digest = _from_hub(weights.hub)
        yield path, weights.digest or digest


def _convert(
    path: CheckedPath, backbone: Backbone, weights: Weights
) -> tuple[dict[str, Tensor], bytes]:
    """Convert a published file, and release its content.

    Returns:
        The backbone's state dict, and its safetensors file.
    """
    if weights.convert is None:
        tensors = read_checkpoint(path)
        path.content = None
        return tensors, tensor_bytes(tensors)
    what = f"weights {weights.tag!r} of {backbone.id}"
    convert = resolve_target(weights.convert, what)
    with plugin_errors(f"the conversion of {what} fails"):
        converted = dict(convert(path, backbone.published, weights))
        path.content = None
        data = tensor_bytes(converted)
    return converted, data


def _check_source(path: Path, expected: str | None, weights: Weights) -> CheckedPath:
    """Read a published file and check its digest, with a hint for installed files."""
    try:
        return check_path(path, expected)
    except WeightsError as error:
        if error.hint is None or weights.file is None:
            raise
        hint = "restore that file, or correct the sha256 where it is registered"
        raise WeightsError(error.message, hint) from error


def _check_model_file(path: Path, file: TensorFile, backbone: Backbone, weights: Weights) -> None:
    """Check that a model file of zoo matches the entry that registers it.

    On a mismatch its tensors may still load, and its predictions would be wrong without a warning.
    """
    if KEY not in file.metadata:
        return
    try:
        card = ModelCard.from_json(file.metadata[KEY])
    except (ValueError, KeyError, TypeError, AttributeError, ZooError) as error:
        raise WeightsError(f"{path} has a damaged description: {error}") from error
    card.check(path)
    built = {**backbone.kwargs, **weights.kwargs}
    if card.classes and len(card.classes) != weights.num_classes:
        message = f"{path} has {len(card.classes)} classes, and is registered with "
        raise WeightsError(f"{message}{weights.num_classes}", "register it with its own classes")
    if isinstance(weights.classes, tuple) and weights.classes != card.classes:
        message = f"{path} is registered with other classes than its own, or in another order"
        raise WeightsError(message, f"its own are {', '.join(card.classes[:10])}")
    if canonical_json(dict(card.kwargs)) != canonical_json(built):
        hint = "kwargs of the backbone, updated by those of these weights, must equal the file's"
        if backbone.extends:
            hint = 'name the weights of its base that it was trained from: like = "TAG" or "none"'
        message = f"{path} was built with {dict(card.kwargs)}, and is registered with {built}"
        raise WeightsError(message, hint)
    if card.preprocess != backbone.preprocess_for(weights):
        log.warning("%s was trained with another preprocess than it is registered with", path)


class NotLocal(WeightsError):
    """Published weights must be downloaded or converted first."""


def fetch(backbone: Backbone, weights: Weights, local: bool = False) -> TensorFile:
    """Return published weights, checked: cached, installed or downloaded.

    Args:
        backbone: whose weights they are.
        weights: their description.
        local: neither download nor convert, and write nothing.

    Returns:
        The backbone's state dict, with the digest of the published file; for a model file of zoo,
        its metadata too.

    Raises:
        NotLocal: `local`, and they are neither in the cache nor installed as safetensors.
        WeightsError: they cannot be reached, or do not match the published digest.
        BrokenBackbone: their converter fails.
        EnvironmentProblem: a download cannot be written.
    """
    if (cached := _read_converted(backbone, weights)) is not None:
        return cached
    ready = weights.file is not None and weights.file.endswith(".safetensors")
    if local and (weights.convert or not ready):
        raise NotLocal(f"weights {weights.tag!r} of {backbone.id} are not at hand")
    with _source_file(weights) as (path, expected):
        source = _check_source(path, expected, weights)
        data, digest = read_file(source)
        if source.suffix == ".safetensors" and weights.convert is None:
            file = read_tensors(source)
            _check_model_file(source, file, backbone, weights)
            if weights.file is not None:
                return file
        else:
            del data  # limit memory to two files
            tensors, data = _convert(source, backbone, weights)
            file = TensorFile(tensors, {}, digest)
    _store(_record_file(backbone, weights), digest, data)
    return file


def _store(record: Path, source: str, data: bytes) -> None:
    """Write a converted file and its record into the cache; warn where that fails."""
    converted = hashlib.sha256(data).hexdigest()
    try:
        write_bytes(record.parent / f"{converted}.safetensors", data)
        digests = {"source": source, "converted": converted}
        write_bytes(record, canonical_json(digests).encode())
    except EnvironmentProblem as error:
        log.warning("weights are not cached, and the next command fetches them again: %s", error)
