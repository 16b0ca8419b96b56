"""Check data and weights of a training against its options and its other processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from zoo.data.names import relative_path
from zoo.data.scan import shorten
from zoo.data.split import ImageData
from zoo.engine.plan.options import Options
from zoo.engine.runtime.distributed import Ranks, join
from zoo.errors import DataError, UsageError, WeightsError, counted
from zoo.models.base_weights import BaseWeights
from zoo.terminal import Progress


def check_same_data(data: ImageData, ranks: Ranks) -> None:
    """Check that all processes have the same images.

    Raises:
        DataError: those of this process differ.
    """
    fingerprints = ranks.gather(data.fingerprint)
    if fingerprints[ranks.rank] != fingerprints[0]:
        message = f"the images of process {ranks.rank + 1} differ from those of process 1"
        raise DataError(message, "copy the same images to each machine")


def check_same_weights(base: BaseWeights, ranks: Ranks) -> None:
    """Check that all processes start from the same weights: `auto` depends on the machine.

    Raises:
        WeightsError: those of this process differ.
    """
    weights = ranks.gather((base.name, base.sha256))
    if weights[ranks.rank] != weights[0]:
        names = f"{base.name}, and process 1 from {weights[0][0]}"
        message = f"process {ranks.rank + 1} starts from weights {names}"
        raise WeightsError(message, "give --weights, and the same files to each machine")


def notice_written(data: ImageData, moment: int, progress: Progress) -> None:
    """Print a notice of files of images that were written or replaced after a moment, if any.

    The fingerprint of data has the size of each file, and not its time: data that is copied is the
    same. The time of a file's status is set by the system, also where a copy preserves that of its
    content. Whether the content is another is not known.

    Args:
        data: whose files exist.
        moment: nanoseconds since the epoch.
        progress: receives the notice.
    """
    written = []
    for split in data.splits.values():
        for path in chain.from_iterable(map(split.files, range(len(split)))):
            with suppress(OSError):  # reading it will report that
                if path.stat().st_ctime_ns > moment:
                    written.append(relative_path(str(path), data.root))
    if written:
        files = counted(len(written), "file was", "files were")
        changed = f"{files} written or replaced since this training began: {shorten(written, 3)}"
        advice = "if they show something else, begin a new training"
        progress.notice(f"{data.name}: {changed}; {advice}")


def notice_skipped(data: ImageData, bad: Sequence[str], progress: Progress) -> None:
    """Print a notice of the images that could not be read, if any."""
    if bad:
        paths = shorten([relative_path(path, data.root) for path in bad], 3)
        skipped = counted(len(bad), "unreadable image")
        progress.notice(f"{data.name}: skipped {skipped}: {paths}")


def check_images(options: Options, data: ImageData) -> None:
    """Check options against the kind of data.

    Raises:
        UsageError: an option cannot be used with it.
    """
    if data.deterministic and options.in_chans not in (None, 1, 3):
        message = f"--in-chans {options.in_chans}: image files are read as colour (3) or grey (1)"
        raise UsageError(message, "for other channels, give a Dataset of tensors")
    loaders = [n for n, split in data.splits.items() if split.steps(1) is not None]
    if loaders and join().distributed:
        message = f"a DataLoader (data[{loaders[0]!r}]) cannot be divided among processes"
        raise UsageError(message, "give its Dataset")
    if loaders and options.augment:
        message = f"--augment cannot be applied to a DataLoader (data[{loaders[0]!r}])"
        raise UsageError(message, "augment in its Dataset, or give the Dataset instead")
