"""Fill a folder with published weights, for machines without a network.

Files have their publishers' names, as `zoo.models.weight_sources` looks them up, and their digests
are in `SHA256SUMS`, as `sha256sum --check` reads it. A file appears whole, with the published
digest, or not at all; a download that breaks off is resumed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from zoo.errors import Busy, WeightsError
from zoo.files import environment_problem, make_dir, open_regular, write_bytes, writing
from zoo.models.download import from_hub, resume_download
from zoo.models.weight_sources import (
    DIGESTS,
    folder_names,
    missing_files,
    package_file,
    published_files,
    read_digests,
)
from zoo.spec import Backbone, Weights
from zoo.temporaries import publish


@dataclass(frozen=True)
class FolderFile:
    """A published file in a folder of weights.

    Args:
        path: of the file.
        sha256: of its content.
        size: in bytes.
        status: `present` (and verified), `copied` from this machine, `downloaded`, or `installed`
            (in a package, and not copied).
    """

    path: Path
    sha256: str
    size: int
    status: str


def put_weights(backbone: Backbone, weights: Weights, folder: Path) -> FolderFile:
    """Put the published file of weights into a folder, unless a verified copy is there.

    Raises:
        WeightsError: it cannot be downloaded, or does not match the published digest.
        EnvironmentProblem: the system refuses to write.
        Busy: another process downloads the same file into the folder.
    """
    if weights.file is not None:
        return _described(package_file(weights.file), "installed")
    if (present := _find_present(weights, folder)) is not None:
        return present
    make_dir(folder)
    for location in published_files(backbone, weights):
        assert location.path is not None
        target = folder / _name_for(weights, location.path)
        if location.path.resolve() == target.resolve():
            continue
        if (digest := _sha256(location.path)).startswith(location.sha256 or ""):
            _copy(location.path, target)
            return _listed(folder, target, digest, "copied")
    try:
        return _download(weights, folder)
    except WeightsError as error:
        others = [text for text in missing_files(backbone, weights) if str(folder) not in text]
        raise WeightsError("; ".join([error.message, *others]), error.hint) from error


def _find_present(weights: Weights, folder: Path) -> FolderFile | None:
    """Return the file in the folder that has the published digest, or the listed one."""
    listed = read_digests(folder)
    for name in folder_names(weights):
        expected = weights.digest or listed.get(name)
        if expected and (folder / name).is_file():
            digest = _sha256(folder / name)
            if digest.startswith(expected):
                return _listed(folder, folder / name, digest, "present")
    return None


def _name_for(weights: Weights, path: Path) -> str:
    """Return the publisher's name for a copy: of two, the one with the same suffix."""
    names = folder_names(weights)
    return next((name for name in names if PurePosixPath(name).suffix == path.suffix), names[0])


def _download(weights: Weights, folder: Path) -> FolderFile:
    if weights.url is None:
        assert weights.hub is not None
        path, expected = from_hub(weights.hub)
        target = folder / _name_for(weights, path)
        digest = _sha256(path)
        _check(path, digest, weights.digest or expected)
        _copy(path, target)
        return _listed(folder, target, digest, "downloaded")
    target = folder / folder_names(weights)[0]
    part = target.with_name(f".{target.name}.part")
    with _exclusive(part) as file:
        resumed = file.tell() > 0
        resume_download(weights.url, file)
        digest = _sha256(part)
        if resumed and not digest.startswith(weights.digest or ""):
            # The file has changed since, or the part was of another one.
            file.truncate(0)
            resume_download(weights.url, file)
            digest = _sha256(part)
        try:
            _check(part, digest, weights.digest)
        except WeightsError:
            part.unlink()
            raise
        publish(part, target)
    return _listed(folder, target, digest, "downloaded")


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[BinaryIO]:
    """Open a file for appending, locked; the system releases the lock with the process.

    Raises:
        Busy: another process has locked it.
        EnvironmentProblem: the system refuses.
    """
    try:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another process downloads {path}"
                raise Busy(message, "wait until it has finished") from None
            try:
                yield file
            finally:
                file.flush()
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
    except OSError as error:
        raise environment_problem(error, path) from error


def _check(path: Path, digest: str, expected: str | None) -> None:
    if not digest.startswith(expected or ""):
        raise WeightsError(
            f"{path.name.removeprefix('.').removesuffix('.part')} is not the file that was "
            f"published: its sha256 starts with {digest[:16]}, expected {str(expected)[:16]}"
        )


def _copy(source: Path, target: Path) -> None:
    try:
        with open_regular(source) as file, writing(target) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    except OSError as error:
        raise WeightsError(f"cannot read {source}: {error.strerror or error}") from error


def _sha256(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _described(path: Path, status: str, digest: str | None = None) -> FolderFile:
    digest = digest or _sha256(path)
    return FolderFile(path, digest, path.stat().st_size, status)


def _listed(folder: Path, path: Path, digest: str, status: str) -> FolderFile:
    """Return a file of the folder, after adding its digest to the folder's list."""
    name = path.relative_to(folder).as_posix()
    with _list_lock(folder):
        listed = read_digests(folder)
        if listed.get(name) != digest:
            lines = sorted({**listed, name: digest}.items())
            text = "".join(f"{value}  {key}\n" for key, value in lines)
            write_bytes(folder / DIGESTS, text.encode())
    return _described(path, status, digest)


@contextlib.contextmanager
def _list_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time update the list of digests."""
    try:
        with (folder / f".{DIGESTS}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise environment_problem(error, folder) from error
