"""Choose the engine of shards by a rule that gives all jobs of a data set the same one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data.shards import Sample, Shard
from zoo.engine.backends.choice import (
    AUTO,
    TORCH,
    Choice,
    choose_alike,
    engine_class,
    pays_from,
    without_option,
)
from zoo.engine.features.files import read_metadata
from zoo.engine.runtime.network import Network
from zoo.errors import DataError, WeightsError, ZooError
from zoo.inference.encoded import EncodedExtractor, EncodedImages


def encoded_of(path: Path, samples: Sequence[Sample]) -> EncodedImages:
    """Return samples of a shard as encoded images."""
    return EncodedImages(
        str(path),
        [f"{path}/{sample.key}" for sample in samples],
        [sample.image for sample in samples],
        {n: each.problem for n, each in enumerate(samples) if each.problem is not None},
    )


def read_done(file: Path) -> dict[str, Any]:
    """Return the metadata of a shard's file of features.

    Raises:
        WeightsError: it is damaged, or no file of features.
    """
    try:
        return read_metadata(file)
    except WeightsError as error:
        raise WeightsError(error.message, "remove it, and run the command again") from error


def choose_for_shards(
    network: Network, given: str, shards: Sequence[Path], done: Sequence[Path]
) -> Choice:
    """Choose the engine for a job, from what is the same for all jobs.

    By `auto` that is the engine of the files that are there; without any, what the rule gives for
    the number of shards times the images of the first that can be read.

    Args:
        network: to compute.
        given: `auto`, or the name of an engine.
        shards: of all jobs.
        done: files of features of them that exist.

    Raises:
        UsageError: the engine does not compute on the device.
        EnvironmentProblem: it is not installed.
        WeightsError: a file of features is none.
    """
    if given == AUTO and done:
        given = str(read_done(done[0])["settings"].get("engine", [TORCH])[0])
        try:
            engine_class(given).check(network.device)
        except ZooError as error:
            message = f"{given} computed {done[0]}: {without_option(given, error)}"
            raise type(error)(message, f"{error.hint}; or give another --out") from error

    def images() -> int:
        enough = math.ceil(pays_from(network) / len(shards))
        for shard in shards:
            try:
                count = sum(1 for _ in itertools.islice(Shard(shard).samples(), enough))
            except DataError:
                continue
            if count:
                return count * len(shards)
        return 0

    return choose_alike(network, given, images)


def confirm_on_shards(extractor: EncodedExtractor, shards: Sequence[Path]) -> None:
    """Check the engine on the first images that can be read, which are the same for all jobs.

    Args:
        extractor: that computes by it.
        shards: of all jobs.

    Raises:
        BrokenBackbone: it is given, and cannot compute the network.
    """
    for shard in shards:
        if extractor.confirmed:
            return
        try:
            samples = list(itertools.islice(Shard(shard).samples(), extractor.batch))
        except DataError:
            continue
        extractor.confirm(encoded_of(shard, samples))
