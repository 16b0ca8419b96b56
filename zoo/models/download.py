"""Download published weights: from an address, or from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from zoo.errors import EnvironmentProblem, WeightsError
from zoo.files import cache_dir, environment_problem, make_dir
from zoo.models.weight_sources import blob_digest, hub_files, url_file

TIMEOUT = 20.0
REFUSED_BY_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
CHUNK = 1 << 20


def check_host(address: str) -> None:
    """Raise at once where a host cannot be resolved, rather than after a library's long retries."""
    if getproxies().keys() & {"http", "https", "all"}:
        return  # the proxy resolves it
    host = urlparse(address).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise WeightsError(f"cannot reach {host}: {error.strerror or error}") from error


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
def downloaded(url: str) -> Iterator[Path]:
    """Download a file into a temporary folder of the cache, removed after the block."""
    if urlparse(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url} is not an http or https address")
    check_host(url)
    name = url_file(url)
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


def from_hub(hub: str) -> tuple[Path, str | None]:
    """Download a file of the hub into the hub's own cache; return it and its sha256 if known."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    repository, names = hub_files(hub)
    if not constants.HF_HUB_OFFLINE:
        check_host(constants.ENDPOINT)
    problem = ""
    for name in names:
        try:
            path = Path(hf_hub_download(repository, name))
            return path, blob_digest(path)
        except (HfHubHTTPError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in REFUSED_BY_THE_SYSTEM:
                raise environment_problem(error, Path(constants.HF_HUB_CACHE)) from error
            problem = problem or " ".join(str(error).split())[:160]
    raise WeightsError(f"cannot download {hub} from the Hugging Face hub: {problem}")
