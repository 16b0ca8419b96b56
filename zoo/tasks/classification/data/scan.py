"""Finding the images of a folder of class folders, each once, without opening any."""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.scan import counted, is_folder, is_hidden, is_image, list_folder, shorten

# By class, in order of name: each image's path relative to the scanned folder, and its size.
Images = dict[str, list[tuple[str, int]]]


@dataclass
class Scan:
    """The images below a folder of class folders.

    Args:
        images: what was found; a class folder without an image is there too.
        other: how many files are not images, by extension.
        hidden: how many hidden files and folders were passed by.
        linked: links to folders that are part of the scan already, or contain it.
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
        """Report what was passed by, one line for each kind.

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
