"""Digests of the contents of images, by which their features are stored."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from zoo.data.decode import UnreadableImage
from zoo.data.split import Split
from zoo.engine.runtime.device import available_cores

CHUNK = 256


def digest_contents(split: Split) -> list[bytes]:
    """Return a digest of each image's content; zeros for unreadable images."""

    def digest(first: int) -> list[bytes]:
        digests = []
        for index in range(first, min(first + CHUNK, len(split))):
            try:
                digests.append(hashlib.sha256(split.content(index)).digest())
            except UnreadableImage:
                digests.append(bytes(32))
        return digests

    # Reading and hashing both release the GIL.
    with ThreadPoolExecutor(min(available_cores(), 8)) as pool:
        parts = pool.map(digest, range(0, len(split), CHUNK))
        return [content for part in parts for content in part]
