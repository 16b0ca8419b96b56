"""Index the images of a folder of class folders, each once, without opening any."""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.formats import describe_missing, is_image
from zoo.data.names import nfc, sort_classes
from zoo.data.scan import is_data_folder, is_folder, is_hidden, list_folder, shorten
from zoo.errors import counted

# By class, in the order of `sort_classes`: path of each image relative to the scanned folder, and
# size in bytes.
Images = dict[str, list[tuple[str, int]]]


@dataclass
class Scan:
    """The images below a folder of class folders.

    Args:
        images: by class; a class folder without images is included, and folders whose names differ
            only in how accents are encoded are one class.
        other: number of files that are not images, by extension.
        hidden: number of hidden files and folders.
        linked: links to folders that are part of the scan already, or contain it.
        broken: dangling links, pipes and devices with the suffix of an image.
        stray: number of images beside the class folders.
        runs: folders of trainings beside the class folders.
        folders: by class, number of images in each folder, relative to the class folder.
    """

    images: Images = field(default_factory=dict)
    other: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    linked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    stray: int = 0
    runs: list[str] = field(default_factory=list)
    folders: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def nonempty(self) -> Images:
        """The classes that have images."""
        return {label: images for label, images in self.images.items() if images}

    @property
    def kinds(self) -> str:
        """The most common extensions of files that are not images, with their counts."""
        return ", ".join(f"{kind} ({count:,})" for kind, count in self.other.most_common(5))

    def notices(self, folder: str) -> list[str]:
        """Report skipped files, one line for each kind.

        Args:
            folder: its name in messages; empty for the only one.
        """
        lines = []
        if self.other:
            files = counted(self.other.total(), "file")
            lines.append(f"{files} that are not images: {self.kinds}")
            if missing := describe_missing(self.other):
                lines[-1] += f"; {missing}"
        if self.hidden:
            lines.append(counted(self.hidden, "hidden file or folder", "hidden files or folders"))
        if self.linked:
            links = counted(len(self.linked), "link")
            lines.append(f"{links} to folders that are indexed already: {shorten(self.linked)}")
        if self.broken:
            broken = counted(len(self.broken), "broken link or pipe", "broken links or pipes")
            lines.append(f"{broken}: {shorten(self.broken)}")
        if self.stray:
            lines.append(f"{counted(self.stray, 'image')} beside the class folders")
        if self.runs:
            lines.append(f"{counted(len(self.runs), 'folder')} of trainings: {shorten(self.runs)}")
        return [f"skipped{folder and f' in {folder}'}: {line}" for line in lines]

    def flattened(self, folder: str) -> list[str]:
        """Report images below sub-folders of class folders, one line if there are any.

        Args:
            folder: its name in messages; empty for the only one.
        """
        deep = {
            f"{folder}{label}/{inner}/": count
            for label, folders in self.folders.items()
            for inner, count in sorted(folders.items())
            if inner
        }
        if not deep:
            return []
        count, folders = sum(deep.values()), shorten(deep)
        has = "image has" if count == 1 else "images have"
        return [f"{count:,} {has} the class of the top folder, not of the sub-folder: {folders}"]


def scan_classes(root: Path) -> Scan:
    """Index the images of every class folder, at any depth.

    Every real folder is read once: a link to a folder that is itself below the root is skipped.

    Args:
        root: a folder with one folder for each class.

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
        elif not is_data_folder(entry):
            scan.runs.append(entry.name)
        elif entry.is_symlink():
            linked_classes.append((nfc(entry.name), entry.name))
        else:
            walk.read(nfc(entry.name), entry.name)
    walk.links.extendleft(reversed(linked_classes))
    walk.follow_links()
    scan.images = {
        name: sorted(scan.images[name], key=lambda image: nfc(image[0]))
        for name in sort_classes(scan.images)
    }
    return scan


class _Walk:
    """Reads every class folder once.

    Links to folders are queued in `links` until all real folders are read.
    """

    def __init__(self, scan: Scan, root: Path) -> None:
        self.scan = scan
        self.root = root
        self.links: deque[tuple[str, str]] = deque()
        real = Path(os.path.realpath(root))
        # A link to any of these would add images of other classes.
        self.visited = {str(folder) for folder in (real, *real.parents)}

    def follow_links(self) -> None:
        """Read the targets of the queued links, and the links inside them."""
        while self.links:
            class_name, link = self.links.popleft()
            self.read(class_name, link)

    def read(self, class_name: str, folder: str) -> None:
        """Add the images of a folder and of the real folders below it."""
        pending = [folder]
        while pending:
            current = pending.pop()
            identity = os.path.realpath(self.root / current)
            if identity in self.visited:
                self.scan.linked.append(current)
                continue
            self.visited.add(identity)
            images = self.scan.images.setdefault(class_name, [])
            before = len(images)
            for entry in list_folder(self.root / current):
                path = f"{current}/{entry.name}"
                if is_hidden(entry.name):
                    self.scan.hidden += 1
                elif not is_folder(entry):
                    self._add(images, entry, path)
                elif entry.is_symlink():
                    self.links.append((class_name, path))
                else:
                    pending.append(path)
            if len(images) > before:
                folders = self.scan.folders.setdefault(class_name, Counter())
                folders[current.partition("/")[2]] += len(images) - before

    def _add(self, images: list[tuple[str, int]], entry: os.DirEntry[str], path: str) -> None:
        if not is_image(entry.name):
            kind = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
            self.scan.other[kind or "no extension"] += 1
            return
        try:
            regular, size = entry.is_file(), entry.stat().st_size
        except OSError:
            regular, size = False, 0
        if regular:
            images.append((path, size))
        else:
            self.scan.broken.append(path)
