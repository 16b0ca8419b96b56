"""Check a network before training for conflicts with the plan."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zoo.data.split import ImageData
from zoo.engine.backends.choice import AUTO, TORCH, Choice
from zoo.engine.features.cache import FeatureCache, feature_batch
from zoo.engine.features.engines import choose_engine, confirm_engine
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.store import FeatureStore
from zoo.engine.plan.plan import Phase
from zoo.engine.plan.recipes import Recipe
from zoo.engine.plan.resolve import Conflicts, Settings
from zoo.engine.probe.phase import probe_conflict
from zoo.engine.runtime.allocator import release_memory
from zoo.engine.runtime.distributed import Ranks, fail_together
from zoo.engine.runtime.memory_format import describe_contiguous
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import BrokenBackbone, UsageError
from zoo.models.freeze import freeze, select_modules
from zoo.models.heads import resolve_head
from zoo.models.plugin_errors import is_out_of_memory
from zoo.options import Policy
from zoo.options.policy import HEAD
from zoo.spec import Head

# A batch of any size shows whether heads on features reproduce the network's output; two images
# keep a dry run short.
DRY_RUN_IMAGES = 2


def select_heads_only(
    model: nn.Module, heads: tuple[Head, ...], policy: Policy | None
) -> tuple[Policy, ...]:
    """Return the policy, in a tuple, if it consists of patterns that match only heads; else `()`.

    Args:
        model: the network.
        heads: of its backbone.
        policy: as given; None if not given.

    Raises:
        UsageError: a pattern matches no module, or the network has fewer stages.
    """
    if policy is None:
        return ()
    trained = set(select_modules(model, heads, policy).trained)
    only_heads = trained == {resolve_head(model, head.path) for head in heads}
    return (policy,) if policy.kind == "modules" and only_heads else ()


def check_network(
    network: Network,
    data: ImageData,
    settings: Settings,
    recipe: Recipe,
    ranks: Ranks,
    dry_run: bool,
    engine: str = AUTO,
) -> Conflicts:
    """Return the conflicts of a network with a plan, the same in every process.

    Args:
        network: on its device; switched to float32 if bf16 fails.
        data: the images.
        settings: of the plan.
        recipe: of the plan.
        ranks: of the processes that train together.
        dry_run: do not write anything.
        engine: of features, `auto` or the name of one.

    Raises:
        UsageError: the engine is given, and cannot be used.
        EnvironmentProblem: it is not installed.
        BrokenBackbone: it cannot compute the network.
        DataError: an image cannot be read and bad images are errors, or no image can be read.
    """
    with fail_together(ranks):
        reason = network.fall_back()
    with fail_together(ranks):
        precision = next(filter(None, ranks.gather(reason)), None)
        if precision is not None:
            network.leave_bf16()
    conflicts = Conflicts(precision, _layers_conflict(network))
    with fail_together(ranks):
        if recipe.on_features and not ranks.rank:
            solved = any(phase.solved for phase in recipe.phases)
            probe = probe_conflict(network) if solved else None
            conflicts = replace(conflicts, probe=probe)
            given = _given_engine(engine, ranks)
            conflicts = _check_features(network, data, settings, dry_run, conflicts, given)
        elif not recipe.on_features and engine not in (AUTO, TORCH):
            message = f"--engine {engine} computes frozen features, and no phase trains on them"
            raise UsageError(message, "omit it, or give --train head")
    with fail_together(ranks):
        # A DataLoader's batches of one have no other size to suggest.
        if settings.batch_size == 1 and data.batch_size is None:
            for phase in recipe.phases:
                if not phase.keep_features:
                    _check_batch_of_one(network, phase)
    with fail_together(ranks):
        return ranks.broadcast(None if ranks.rank else conflicts)


def _layers_conflict(network: Network) -> str | None:
    """Return why layers are contiguous in a network that is channels last; None without any."""
    if not network.contiguous or network.memory_format != torch.channels_last:
        return None
    return describe_contiguous(network.contiguous)


def _check_batch_of_one(network: Network, phase: Phase) -> None:
    """Check on a blank image that a phase can train on batches of one.

    Raises:
        UsageError: batch norm that trains gets a single value of each channel, or the network fails
            on one image and not on two.
    """
    single: list[str] = []

    def record(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            single.append(name)

    module = network.module
    freeze(module, policy=phase.policy)
    handles = [
        part.register_forward_pre_hook(partial(record, name))
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        reason = _failure(network, 1)
    finally:
        for handle in handles:
            handle.remove()
    if single:
        reason = f"batch norm {single[0]} has no variance over one value of each channel"
    elif reason is not None and _failure(network, 2) is not None:
        return  # not for the size of the batch
    if reason is not None:
        hint = "give at least 2, or --train head, which leaves batch norm frozen"
        raise UsageError(f"--batch-size 1: {reason}", hint)


def _failure(network: Network, images: int) -> str | None:
    """Return why a network fails on some blank images in training mode; None if it does not."""
    size = network.preprocess.channels, network.preprocess.height, network.preprocess.width
    forwards = network.forwards
    before = [(buffer, buffer.clone()) for buffer in network.module.buffers()]
    network.module.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network.forward(torch.zeros((images, *size), dtype=torch.uint8), training=True)
    except BrokenBackbone as error:
        return error.message
    finally:
        network.forwards = forwards
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
    return None


def _given_engine(engine: str, ranks: Ranks) -> str | Choice:
    """Return the engine as given, or torch where several processes choose alike."""
    if engine == AUTO and ranks.distributed:
        return Choice(TORCH, "auto: several processes compute the features")
    return engine


def _check_features(
    network: Network,
    data: ImageData,
    settings: Settings,
    dry_run: bool,
    conflicts: Conflicts,
    given: str | Choice,
) -> Conflicts:
    """Return the conflicts with the engine of features, or why features cannot be cached."""
    freeze(network.module, policy=HEAD)
    batch = feature_batch(network.device)
    reader = ImageReader(
        network.task.transform(network.preprocess),
        network.device,
        batch,
        bad_images=settings.bad_images,
    )
    images = sum(map(len, data.splits.values())) + (settings.views - 1) * len(data.splits["train"])
    choice = given if isinstance(given, Choice) else choose_engine(network, given, batch, images)
    while True:
        name, about = network_fingerprint(network, batch, choice.name)
        with FeatureStore(name, about, read_only=dry_run) as store:
            cache = FeatureCache(
                network, reader, store, lambda batches, *_: batches, engine=choice.name
            )
            count = DRY_RUN_IMAGES if dry_run else batch
            while isinstance(conflict := _check(cache, data, count), MemoryError):
                release_memory(network.device)
                count //= 2
            conflict = conflict or cache.storage_shortfall(images)
            if conflict is not None:
                return replace(conflicts, features=conflict, **_without_features(choice, conflict))
            split = data.splits.get("val", data.splits["train"])
            confirmed = confirm_engine(choice, cache, split, count, write=not dry_run)
        if confirmed.name == choice.name:
            return replace(conflicts, engine=confirmed.name, engine_reason=confirmed.reason)
        choice = confirmed


def _without_features(choice: Choice, conflict: str) -> dict[str, str]:
    """Return the engine where features cannot be cached.

    Raises:
        UsageError: another one than torch was given.
    """
    if choice.given and choice.name != TORCH:
        message = f"--engine {choice.name} computes frozen features: {conflict}"
        raise UsageError(message, "omit it")
    return {"engine": TORCH, "engine_reason": f"auto: {conflict}"}


def _check(cache: FeatureCache, data: ImageData, images: int) -> str | MemoryError | None:
    """Check that heads on cached features reproduce the network's output.

    Returns:
        Why they do not, None if they do, or an error without frames if memory ran out.
    """
    try:
        return cache.incompatibility(data.splits.get("val", data.splits["train"]), images)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or images == 1:
            raise
        return MemoryError()  # not the error itself, whose frames reference the memory
