"""Finding the images of a folder of class folders, each once, without opening any."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import DataError

# fmt: off
EXTENSIONS = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})
# fmt: on

# By class, in order of name: each image's path relative to the scanned folder, and its size.
Images = dict[str, list[tuple[str, int]]]

# Left behind by archivers and file servers; some hold thumbnails of every image.
LITTER = frozenset({"__MACOSX", "@eaDir"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is never looked at, such as `.ipynb_checkpoints`."""
    return name.startswith(".") or name in LITTER


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 - a million of them


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one, and not hidden."""
    try:
        return not is_hidden(entry.name) and entry.is_dir()
    except OSError:
        return False  # a link to itself


@dataclass
class Scan:
    """The images below a folder of class folders.

    Args:
        images: what was found; a class folder without an image is there too.
        other: how many files are not images, by extension.
        hidden: how many hidden files and folders were passed by.
        linked: links to folders that are part of the scan already, or hold it.
        broken: links that lead nowhere, pipes and devices.
        stray: images beside the class folders.
    """

    images: Images = field(default_factory=dict)
    other: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    linked: list[str] = field(default_factory=list)
    broken: int = 0
    stray: int = 0

    @property
    def kinds(self) -> str:
        """The commonest extensions of files that are not images, and how many there are."""
        return ", ".join(f"{kind} ({count:,})" for kind, count in self.other.most_common(5))

    def notices(self, where: str) -> list[str]:
        """Say what was passed by, one line for each kind.

        Args:
            where: what a person calls the folder; empty where there is but one.
        """
        lines = []
        if self.other:
            files = counted(self.other.total(), "file")
            lines.append(f"{files} of no image kind: {self.kinds}")
        if self.hidden:
            lines.append(counted(self.hidden, "hidden file or folder", "hidden files or folders"))
        if self.linked:
            links = counted(len(self.linked), "link")
            lines.append(f"{links} to folders that are read already: {shorten(self.linked)}")
        if self.broken:
            lines.append(counted(self.broken, "broken link or pipe", "broken links or pipes"))
        if self.stray:
            lines.append(f"{counted(self.stray, 'image')} beside the class folders")
        return [f"left out{where and f' of {where}'}: {line}" for line in lines]


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: `1 image`, `1,200 images`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Join names for a message, saying how many are left out."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def scan_classes(root: Path) -> Scan:
    """Find the images of every class folder, at any depth.

    Every real folder is read once, whatever leads to it: where a link and the folder itself are
    both below the root, the folder counts and the link does not.

    Args:
        root: the folder that holds one folder for each class.

    Raises:
        DataError: a folder cannot be listed.
    """
    scan = Scan()
    walk = _Walk(scan, root)
    linked_classes = []
    for entry in list_folder(root):
        if is_hidden(entry.name):
            scan.hidden += 1
        elif not is_folder(entry):
            scan.stray += is_image(entry.name)
        elif entry.is_symlink():
            linked_classes.append((entry.name, entry.name))
        else:
            walk.read(entry.name, entry.name)
    walk.links.extendleft(reversed(linked_classes))
    walk.follow_links()
    scan.images = {name: sorted(scan.images[name]) for name in sorted(scan.images)}
    return scan


class _Walk:
    """Reads class folders, and knows which folders it has read.

    Real folders are read at once; links to folders wait in `links` until all of those are known.
    """

    def __init__(self, scan: Scan, root: Path) -> None:
        self.scan = scan
        self.root = root
        self.links: deque[tuple[str, str]] = deque()
        real = Path(os.path.realpath(root))
        # A link to any of these would bring in images of other classes.
        self.read_already = {str(folder) for folder in (real, *real.parents)}

    def follow_links(self) -> None:
        """Read what the links lead to, and the links found there."""
        while self.links:
            class_name, link = self.links.popleft()
            self.read(class_name, link)

    def read(self, class_name: str, folder: str) -> None:
        """Take in the images of a folder and of the real folders below it."""
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            identity = os.path.realpath(self.root / current)
            if identity in self.read_already:
                self.scan.linked.append(current)
                continue
            self.read_already.add(identity)
            found = self.scan.images.setdefault(class_name, [])
            for entry in list_folder(self.root / current):
                path = f"{current}/{entry.name}"
                if is_hidden(entry.name):
                    self.scan.hidden += 1
                elif not is_folder(entry):
                    self._take(found, entry, path)
                elif entry.is_symlink():
                    self.links.append((class_name, path))
                else:
                    waiting.append(path)

    def _take(self, found: list[tuple[str, int]], entry: os.DirEntry[str], path: str) -> None:
        if not is_image(entry.name):
            kind = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
            self.scan.other[kind or "no extension"] += 1
            return
        try:
            regular, size = entry.is_file(), entry.stat().st_size
        except OSError:
            regular, size = False, 0
        if regular:
            found.append((path, size))
        else:
            self.scan.broken += 1
