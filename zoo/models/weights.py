"""Published weights: check, convert once, read.

Weights are inside an installed package or at a path (`file`), at an address (`url`) or on the
Hugging Face hub (`hub`). A copy of the published file that `zoo.models.weight_sources` locates is
used instead of a download. Other formats than a safetensors state dict are converted once into the
cache, where a file is named by its sha256, so that every load can check it. Each file is read once:
a converter is called with a `CheckedPath`, which contains the checked content.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BrokenBackbone, EnvironmentProblem, WeightsError, counted
from zoo.files import canonical_json, write_bytes, writing
from zoo.formats import SAFETENSORS
from zoo.modelfile import KEY, ModelCard, checked_card
from zoo.models.download import check_host, downloaded, from_hub
from zoo.models.plugin_errors import plugin_errors
from zoo.models.same_network import same_arguments, same_network
from zoo.models.weight_sources import (
    DOWNLOAD,
    MISSING,
    locate,
    missing_files,
    package_file,
    published_files,
    read_record,
    record_file,
)
from zoo.spec import Backbone, Weights, resolve_target
from zoo.tensorfile import (
    CheckedPath,
    TensorFile,
    check_path,
    read_checkpoint,
    read_content,
    read_tensors,
)
from zoo.tensorstream import TensorStream

if TYPE_CHECKING:
    from torch import Tensor

# Of a file; iterated twice.
Parts = Iterable[bytes | memoryview]
log = logging.getLogger("zoo")


def _read_converted(backbone: Backbone, weights: Weights) -> TensorFile | None:
    """Return converted weights from the cache; None where they are missing or damaged."""
    record = record_file(backbone, weights)
    digests = read_record(record)
    if not digests:
        return None
    converted = digests["converted"]
    path = record.parent / f"{converted}.safetensors"
    try:
        file = read_tensors(path, converted)
    except WeightsError:
        return None
    _check_model_file(path, file, backbone, weights)
    return replace(file, sha256=digests["source"])


def check_reachable(backbone: Backbone, weights: Weights) -> None:
    """Look up whether weights that are not on this machine could be downloaded; nothing is fetched.

    Raises:
        WeightsError: their host has no address.
    """
    if locate(backbone, weights) != DOWNLOAD:
        return
    if weights.url is not None:
        check_host(weights.url)
    else:
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE:
            check_host(constants.ENDPOINT)


@contextlib.contextmanager
def _source(backbone: Backbone, weights: Weights) -> Iterator[CheckedPath]:
    """Read the published file and check its digest: installed, on this machine, or downloaded.

    A copy in another program's cache that does not match is skipped with a warning.
    """
    if weights.file is not None:
        yield _check_installed(weights)
        return
    for location in published_files(backbone, weights):
        assert location.path is not None
        try:
            copy = check_path(location.path, location.sha256)
        except WeightsError as error:
            text = location.text
            log.warning("skipping weights %s, %s: %s", weights.tag, text, error.message)
        else:
            yield copy
            return
    with contextlib.ExitStack() as stack:
        try:
            path, digest = _download(weights, stack)
        except WeightsError as error:
            message = "; ".join([error.message, *missing_files(backbone, weights)])
            raise WeightsError(message, error.hint or _offline_hint(backbone, weights)) from error
        yield check_path(path, digest)


def _offline_hint(backbone: Backbone, weights: Weights) -> str:
    others = [
        each.tag
        for each in backbone.weights
        if each is not weights and locate(backbone, each).local
    ]
    tags = f"give --weights {' or '.join(others)}, or " if others else ""
    way = f"`zoo fetch {backbone.id} --to DIR` fills it where there is a network"
    return f"{tags}set ZOO_WEIGHTS_DIR to a folder with the published file; {way}"


def _download(weights: Weights, stack: contextlib.ExitStack) -> tuple[Path, str | None]:
    """Download a published file; return its path, valid as long as the stack, and its digest."""
    if weights.url is not None:
        return stack.enter_context(downloaded(weights.url)), weights.digest
    assert weights.hub is not None
    path, digest = from_hub(weights.hub)
    return path, weights.digest or digest


def _convert(
    path: CheckedPath, backbone: Backbone, weights: Weights
) -> tuple[dict[str, Tensor], Parts]:
    """Convert a published file, and release its content.

    Returns:
        The backbone's state dict, and the parts of its safetensors file.
    """
    if weights.convert is None:
        tensors = read_checkpoint(path)
        path.content = None
        return tensors, TensorStream(tensors)
    what = f"weights {weights.tag!r} of {backbone.id}"
    convert = resolve_target(weights.convert, what)
    with plugin_errors(f"the conversion of {what} fails"):
        converted = dict(convert(path, backbone.published, weights))
        path.content = None
        data = TensorStream(converted)
    return converted, data


def _check_installed(weights: Weights) -> CheckedPath:
    """Read an installed file and check its digest."""
    assert weights.file is not None
    try:
        return check_path(package_file(weights.file), weights.digest)
    except WeightsError as error:
        if error.hint is None:
            raise
        hint = "restore that file, or correct the sha256 where it is registered"
        raise WeightsError(error.message, hint) from error


def _check_model_file(path: Path, file: TensorFile, backbone: Backbone, weights: Weights) -> None:
    """Check that a model file of zoo matches the entry that registers it.

    On a mismatch its tensors may still load, and its predictions would be wrong without a warning.
    """
    if KEY not in file.metadata:
        return
    card = checked_card(path, file.metadata[KEY])
    built = {**backbone.kwargs, **weights.kwargs}
    # A registry.toml is its user's, an adapter its plugin's.
    of_plugin = weights in backbone.published.weights
    refused = BrokenBackbone if of_plugin else WeightsError
    if card.classes and len(card.classes) != weights.num_classes:
        message = f"{path} has {counted(len(card.classes), 'class')}, and is registered with "
        raise refused(f"{message}{weights.num_classes}", "register it with its own classes")
    if isinstance(weights.classes, tuple) and weights.classes != card.classes:
        message = f"{path} is registered with other classes than its own, or in another order"
        raise refused(message, f"its own are {', '.join(card.classes[:10])}")
    if not _built_alike(card, built, file, backbone, weights):
        hint = "kwargs of the backbone, updated by those of these weights, must equal the file's"
        if backbone.extends:
            hint = 'name the weights of its base that it was trained from: like = "TAG" or "none"'
        message = f"{path} was built with {dict(card.kwargs)}, and is registered with {built}"
        raise WeightsError(message, hint)
    if card.preprocess != backbone.preprocess_for(weights):
        log.warning("%s was trained with another preprocess than it is registered with", path)


def _built_alike(
    card: ModelCard,
    built: Mapping[str, Any],
    file: TensorFile,
    backbone: Backbone,
    weights: Weights,
) -> bool:
    """Whether a model file's builder arguments and the registered ones make the same network."""
    if same_arguments(backbone, card.kwargs, built):
        return True
    if weights.file is None and weights.digest is None:
        return False  # an untrusted file must not choose what a builder is called with
    preprocess = backbone.preprocess_for(weights)
    return same_network(backbone, card.kwargs, built, file.tensors, preprocess)


class NotLocal(WeightsError):
    """Published weights must be downloaded or converted first."""


def fetch(backbone: Backbone, weights: Weights, local: bool = False) -> TensorFile:
    """Return published weights, checked: cached, installed, copied from elsewhere or downloaded.

    Args:
        backbone: whose weights they are.
        weights: their description.
        local: neither download nor convert, and write nothing.

    Returns:
        The backbone's state dict, with the digest of the published file; for a model file of zoo,
        its metadata too.

    Raises:
        NotLocal: `local`, and they are neither in the cache nor installed as safetensors.
        WeightsError: they are missing, cannot be reached, or do not match the published digest.
        BrokenBackbone: their converter fails.
        EnvironmentProblem: a download cannot be written.
    """
    if (cached := _read_converted(backbone, weights)) is not None:
        return cached
    ready = weights.file is not None and weights.file.endswith(".safetensors")
    if local and (weights.convert or not ready):
        if (location := locate(backbone, weights)).kind == MISSING:
            raise WeightsError(location.text)
        raise NotLocal(f"weights {weights.tag!r} of {backbone.id} are not on this machine")
    with _source(backbone, weights) as source:
        file, data = _read_source(source, backbone, weights)
    if weights.convert or not ready:
        _store(record_file(backbone, weights), file.sha256, data)
    return file


def _read_source(
    source: CheckedPath, backbone: Backbone, weights: Weights
) -> tuple[TensorFile, Parts]:
    """Return the state dict of a published file, and the parts of its safetensors file."""
    content = read_content(source)
    if content.kind is SAFETENSORS and weights.convert is None:
        file = read_tensors(source)
        _check_model_file(source, file, backbone, weights)
        return file, (content.data,)
    digest = content.sha256
    del content  # limit memory to two files
    tensors, data = _convert(source, backbone, weights)
    return TensorFile(tensors, {}, digest), data


def open_local(backbone: Backbone, weights: Weights) -> TensorFile:
    """Return published weights from this machine, checked; the cache is not written.

    A published file on this machine is converted again, since its converter may have changed.

    Raises:
        NotLocal: they must be downloaded.
        WeightsError: they are missing, or do not match the published digest.
        BrokenBackbone: their converter fails.
    """
    source = _check_installed(weights) if weights.file is not None else None
    for location in published_files(backbone, weights)[:1] if source is None else ():
        assert location.path is not None
        source = check_path(location.path, location.sha256)
    if source is not None:
        return _read_source(source, backbone, weights)[0]
    if (cached := _read_converted(backbone, weights)) is not None:
        return cached
    raise NotLocal(f"weights {weights.tag!r} of {backbone.id} are to be downloaded")


def _store(record: Path, source: str, data: Parts) -> None:
    """Write a converted file and its record into the cache; warn where that fails."""
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    converted = digest.hexdigest()
    try:
        with writing(record.parent / f"{converted}.safetensors") as file:
            file.writelines(data)
        digests = {"source": source, "converted": converted}
        write_bytes(record, canonical_json(digests).encode())
    except EnvironmentProblem as error:
        log.warning("weights are not cached, and the next command fetches them again: %s", error)
