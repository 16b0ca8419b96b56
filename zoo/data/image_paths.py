"""Find the image files that a table names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zoo.data.formats import is_image
from zoo.data.names import nfc
from zoo.data.scan import is_folder, list_folder
from zoo.errors import DataError
from zoo.files import NotRegular

# Folders that are searched for paths which are not relative to the table's folder.
MAX_FOLDERS, MAX_DEPTH = 1000, 2


class AmbiguousImage(Exception):
    """Several files match; the message names two."""


@dataclass
class _Listing:
    """The files and folders of a folder, by NFC name, and its images by name without suffix."""

    names: dict[str, str] = field(default_factory=dict)
    stems: dict[str, list[str]] = field(default_factory=dict)


class ImageFinder:
    """Finds files by path, or by name without suffix, relative to the folder of a table.

    Names that differ only in how accents are encoded match.

    Args:
        folder: of the table.
        bases: folders to search, relative to it, each with a `/` at the end; "", for itself, comes
            first and is preferred.
        prefix: folders of another place, which paths begin with and which is removed from them;
            with a `/` at the end.
    """

    def __init__(self, folder: Path, bases: Sequence[str] = ("",), prefix: str = "") -> None:
        self.folder = folder
        self.bases = tuple(bases)
        self.prefix = prefix
        self._root = str(folder)
        self._prefix = f"{folder.absolute()}{os.sep}"
        self._listings: dict[str, _Listing] = {}

    def normalize(self, path: str) -> str:
        """Return a path with `/` between folders, relative to the folder of the table if below it.

        Two spellings of a path are equal after it.
        """
        if "\\" in path and os.sep == "/" and not os.path.lexists(self._joined(path)):
            path = path.replace("\\", "/")
        path = path.removeprefix(self._prefix).removeprefix(self.prefix)
        return str(PurePosixPath(path)) if "./" in path or "//" in path else path

    def find(self, path: str) -> tuple[str, int]:
        """Return a file's path relative to the folder of the table, and its size in bytes.

        Args:
            path: normalized.

        Raises:
            FileNotFoundError: there is none.
            AmbiguousImage: there are several.
            OSError, ValueError: it cannot be read.
        """
        matches: list[tuple[str, int]] = []
        for base in self.bases:
            match = self._find_in(base, path)
            if match is not None and base == "":
                return match
            matches += [match] if match else []
        if not matches:
            raise FileNotFoundError(path)
        if len(matches) > 1:
            raise AmbiguousImage(f"{matches[0][0]} and {matches[1][0]}")
        return matches[0]

    def exact(self, path: str) -> bool:
        """Return whether a path is that of a regular file, as written."""
        try:
            return bool(path) and stat.S_ISREG(os.stat(self._joined(path)).st_mode)  # noqa: PTH116
        except (OSError, ValueError):
            return False

    def finds(self, path: str) -> bool:
        """Return whether `find` finds exactly one regular file."""
        try:
            return bool(path) and self.exact(self.find(path)[0])
        except (OSError, ValueError, AmbiguousImage):
            return False

    def _joined(self, path: str) -> str:
        return os.path.join(self._root, path)  # noqa: PTH118 - a million of them

    def _find_in(self, base: str, path: str) -> tuple[str, int] | None:
        candidate = base + path
        try:
            return candidate, self._size(candidate)
        except (FileNotFoundError, NotADirectoryError):
            pass
        similar = self._similar(candidate)
        return None if similar is None else (similar, self._size(similar))

    def _size(self, path: str) -> int:
        status = os.stat(self._joined(path))  # noqa: PTH116 - fast
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(path)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(path)
        return status.st_size

    def _similar(self, path: str) -> str | None:
        """Return the file whose name is equal in NFC, or equal to a name without suffix."""
        *folders, name = path.split("/")
        current = ""
        for part in folders:
            actual = part if part in ("", ".", "..") else self._list(current).names.get(nfc(part))
            if actual is None:
                return None
            current += f"{actual}/"
        listing = self._list(current)
        if (actual := listing.names.get(nfc(name))) is not None:
            return current + actual
        stems = listing.stems.get(nfc(name), [])
        if len(stems) > 1:
            raise AmbiguousImage(f"{current}{stems[0]} and {current}{stems[1]}")
        return current + stems[0] if stems else None

    def _list(self, folder: str) -> _Listing:
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = _Listing()
            try:
                entries = list_folder(Path(self._joined(folder)))
            except (DataError, ValueError):
                return listing
            for entry in entries:
                listing.names[nfc(entry.name)] = entry.name
                if is_image(entry.name):
                    stem = nfc(os.path.splitext(entry.name)[0])  # noqa: PTH122
                    listing.stems.setdefault(stem, []).append(entry.name)
        return listing

    def searching(self, paths: Sequence[str]) -> ImageFinder:
        """Return a finder that also finds most of the paths that this does not find.

        It searches other folders, or removes folders that all paths begin with.

        Args:
            paths: normalized, a sample.

        Returns:
            This finder where nothing is missing, or nothing helps.
        """
        missing = [path for path in dict.fromkeys(paths) if not self.finds(path)]
        if not missing:
            return self
        if prefix := self._foreign_prefix(missing):
            return ImageFinder(self.folder, self.bases, prefix)
        matches: dict[str, set[str]] = {}
        for base in self._folders():
            finder = ImageFinder(self.folder, (base,))
            if names := {path for path in missing if finder.finds(path)}:
                matches[base] = names
        if not matches or 2 * len(set().union(*matches.values())) < len(missing):
            return self
        here = [""] if len(missing) < len(set(paths)) else []
        return ImageFinder(self.folder, [*here, *matches])

    def _foreign_prefix(self, missing: Sequence[str]) -> str:
        """Return the folders to remove from absolute paths, so that all are found; or ""."""
        absolute = missing[0].startswith("/") or missing[0][1:3] == ":/"
        folders = missing[0].split("/")[:-1] if absolute else []
        for count in range(1, len(folders) + 1):
            prefix = "/".join(folders[:count]) + "/"
            if all(p.startswith(prefix) and self.finds(p.removeprefix(prefix)) for p in missing):
                return prefix
        return ""

    def _folders(self) -> Iterator[str]:
        """Yield the folder around the table's folder, then those below it, the nearest first."""
        yield "../"
        level, count = [""], 0
        for _ in range(MAX_DEPTH):
            below = []
            for parent in level:
                try:
                    entries = list_folder(Path(self._joined(parent)))
                except DataError:
                    continue
                below += [f"{parent}{entry.name}/" for entry in entries if is_folder(entry)]
            yield from below[: MAX_FOLDERS - count]
            count += len(below)
            level = below
