"""Read a split and compute the inputs of the heads, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.batch import PendingBatch
from zoo.data.loader import Batch
from zoo.data.split import Split
from zoo.engine.backends.engine import Engine, Inputs
from zoo.engine.runtime.reader import ImageReader


def stream_split(
    engine: Engine,
    reader: ImageReader,
    split: Split,
    order: Sequence[int],
    draw: Draw | None = None,
    digest: bool = False,
) -> Iterator[tuple[Batch, Inputs | None]]:
    """Yield batches of a split with the inputs of the heads, in order.

    Where the engine computes on several batches at once, each is read by the thread that then
    waits for the engine, if several threads may read the split.

    Args:
        engine: that computes.
        reader: of the split.
        split: to read.
        order: positions in the split.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest the content too.

    Yields:
        The batches that `reader.read` yields. The inputs are None for images of a size that the
        engine does not compute on.

    Raises:
        UnreadableImages: images cannot be read and bad images are errors.
    """

    def images(batch: Batch) -> Tensor | None:
        return batch.inputs if len(batch) and engine.accepts(batch.inputs) else None

    def images_of(pending: PendingBatch) -> Tensor | None:
        return images(pending.batch)

    pending = reader.pending(split, order, draw, digest) if engine.threaded else None
    if pending is None:
        yield from engine.stream(reader.read(split, order, draw, digest), images)
        return
    with closing(engine.stream(pending, images_of)) as computed:
        pairs = ((each.batch, inputs) for each, inputs in computed)
        yield from reader.recorded(pairs, len(order))
