"""Read every image once before training: name the unreadable ones and the duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from zoo.data.bad_images import describe_incomplete
from zoo.data.duplicates import Duplicates, find_duplicates
from zoo.data.split import ImageData, Split
from zoo.engine.runtime.contents import digest_contents
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.reader import ImageReader, raise_unreadable
from zoo.terminal import Progress


class ImageCheck:
    """Checks the images of a training before its first step.

    Where features are computed, that pass reads the images; `read` is for splits that it does not.

    Args:
        data: the splits.
        reader: of the images; records those that cannot be read.
        progress: display of progress and notices.
        ranks: of the processes that train together.
    """

    def __init__(
        self, data: ImageData, reader: ImageReader, progress: Progress, ranks: Ranks = SINGLE
    ) -> None:
        self.data = data
        self.reader = reader
        self.progress = progress
        self.ranks = ranks
        self.digests: dict[str, list[bytes]] = {}

    def read(self, names: Iterable[str]) -> None:
        """Read every image of some splits, divided among the processes.

        Unreadable images are recorded by the reader, for `raise_unreadable`. If they are skipped,
        content is digested only. A cache of prepared images is filled. Datasets of the user, whose
        images may differ each time, are not read.
        """
        for name in names if self.data.deterministic else ():
            split = self.data.splits[name]
            if self.reader.bad_images == "error":
                self.digests[name] = self._decode(split)
            elif not self.ranks.rank:
                self.digests[name] = digest_contents(split)

    def _decode(self, split: Split) -> list[bytes]:
        """Return the digest of each image; empty for those that cannot be read."""
        reader = replace(self.reader, bad_images="skip")
        order = self.ranks.shard(range(len(split)))
        steps = math.ceil(len(order) / reader.batch_size)
        batches = reader.read(split, order, digest=True)
        own: dict[int, bytes] = {}
        for batch in self.progress.wrap(batches, steps, f"reading {split.name}"):
            own.update(zip(batch.indices.tolist(), batch.digests, strict=True))
        merged = {index: each for part in self.ranks.gather(own) for index, each in part.items()}
        return [merged.get(index, b"") for index in range(len(split))]

    def raise_unreadable(self) -> None:
        """Raise an error that names all unreadable images, if bad images are errors.

        Raises:
            UnreadableImages: there are any; in all processes.
        """
        raise_unreadable(self.reader, sum(map(len, self.data.splits.values())), self.ranks)

    def report(self) -> Duplicates | None:
        """Report what the images have that training ignores; return the duplicates on rank 0."""
        incomplete = sorted(
            {path for part in self.ranks.gather(self.reader.incomplete) for path in part}
        )
        if self.ranks.rank:
            return None
        digests = {name: self.digests[name] for name in self.data.splits if name in self.digests}
        root = self.data.root
        duplicates = find_duplicates(self.data.splits, digests, self.data.classes)
        for line in [*describe_incomplete(incomplete, root), *duplicates.notices(root)]:
            self.progress.notice(f"{self.data.name}: {line}")
        return duplicates
