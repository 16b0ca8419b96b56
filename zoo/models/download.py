"""Download published weights: from an address, or from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import errno
import http
import http.client
import os
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse
from urllib.request import getproxies

from zoo.errors import WeightsError
from zoo.files import cache_dir, environment_problem, staging_folder
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


def resume_download(url: str, file: BinaryIO) -> None:
    """Download a file, continuing after what an earlier attempt has written.

    Args:
        url: http or https.
        file: open for appending; what was received is in it, whatever happens.

    Raises:
        WeightsError: the server does not answer, or the connection breaks off.
        EnvironmentProblem: the file cannot be written.
    """
    if urlparse(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url} is not an http or https address")
    check_host(url)
    start = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "zoo-registry"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                file.truncate(0)  # the server sends the whole file
                start = 0
            _receive(response, file, start, url_file(url))
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise WeightsError(f"{url} answered {error.code} {error.reason}") from error
        # Nothing is left to send: the file is complete, or its digest will not match.
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(f"cannot download {url}: {reason}") from error
    except (ConnectionError, ssl.SSLError) as error:
        raise WeightsError(f"the download of {url} broke off: {error}") from error
    except OSError as error:
        raise environment_problem(error, Path(url_file(url))) from error


def _receive(response: http.client.HTTPResponse, file: BinaryIO, start: int, label: str) -> None:
    """Append the content of a response to a file that has `start` bytes."""
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    expected = start + int(length) if length and length.isdecimal() else None
    shown = {"unit": "B", "unit_scale": True, "desc": label, "initial": start}
    received = start
    with tqdm(total=expected, disable=not sys.stderr.isatty(), **shown) as progress:
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
    file.flush()
    if expected is not None and received != expected:
        raise WeightsError(f"the download ended after {received:,} of {expected:,} bytes")


@contextlib.contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """Download a file into a temporary folder of the cache, removed after the block."""
    with staging_folder(cache_dir() / "downloads") as folder:
        target = folder.path / url_file(url)
        with target.open("ab") as file:
            resume_download(url, file)
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
