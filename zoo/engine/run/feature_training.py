"""Train a head on files of features, which have no images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from zoo.data.images import noise
from zoo.data.schema import Schema
from zoo.data.split import ImageData
from zoo.engine.features.cache import feature_batch
from zoo.engine.features.files import FeatureFiles, find_files, read_metadata
from zoo.engine.features.hooks import check_head_equivalence, run_heads
from zoo.engine.plan.options import Options
from zoo.engine.plan.plan import RIDGE, Plan
from zoo.engine.probe.from_files import recipe_for, ridge_files, solve_files
from zoo.engine.probe.phase import copy_to_head, probe_conflict, to_record
from zoo.engine.runtime.device import available_cores
from zoo.engine.runtime.distributed import join
from zoo.engine.runtime.network import Network
from zoo.engine.training.state import TrainState
from zoo.errors import UsageError, ZooError
from zoo.events import EpochEnded
from zoo.models.base_weights import BaseWeights
from zoo.models.freeze import freeze, inference_mode_of
from zoo.options.policy import HEAD
from zoo.tasks.base import BaseTask, Metric

# Images of noise that show whether a head on features has the outputs of the network.
CHECKED = 2


def backbone_of_features(options: Options) -> str | None:
    """Return the backbone of the features that a training is given; None without any.

    Raises:
        DataError: there are no files.
        WeightsError: the first is damaged.
    """
    if options.features is None:
        return None
    return str(read_metadata(find_files(Path(options.features))[0])["backbone"])


def open_features(
    options: Options, task: BaseTask, seed: int, val_fraction: float
) -> tuple[Options, FeatureFiles, ImageData]:
    """Open the features of a training, as its data.

    Returns:
        The options with what the features decide; the files; and their splits.

    Raises:
        UsageError: the task has no classes, or several processes train.
        DataError: the features cannot be used.
    """
    folder = Path(str(options.features))
    if join().distributed:
        message = "--features trains in one process, and torchrun started several"
        raise UsageError(message, "run it without torchrun")
    files = FeatureFiles.open(folder, seed, val_fraction)
    try:
        schema: Schema = task.schema_from_dict({"classes": list(files.classes)})
    except (TypeError, ValueError, KeyError, ZooError) as error:
        message = f"--features has classes, and {task.name} learns from other targets"
        raise UsageError(message, "give --data") from error
    notices = []
    if files.unlabelled:
        notices.append(f"left out: {files.unlabelled:,} images without a label")
    data = ImageData(
        name=folder.name,
        schema=schema,
        splits=dict(files.splits),
        fingerprint=files.fingerprint,
        notices=tuple(notices),
        reason="splits as given" if not files.val_fraction else "held out by a hash of the key",
        own_val=not files.val_fraction and "val" in files.splits,
    )
    recipe = options.recipe or recipe_for(files)[0]
    values = {"data": str(folder), "precision": files.precision, "recipe": recipe}
    return options.with_values(**values), files, data


def with_preprocess(base: BaseWeights, files: FeatureFiles) -> BaseWeights:
    """Return the weights with the preprocess of the features."""
    reason = "of the features"
    return replace(base, preprocess=files.preprocess, preprocess_reason=reason)


def with_reasons(plan: Plan, files: FeatureFiles, options: Options) -> Plan:
    """Return the plan with the reasons of what the features decide.

    Args:
        plan: of the training.
        files: of the features.
        options: as given.
    """
    reasons = {"precision": "of the features"}
    if options.recipe is None:
        reasons["recipe"] = f"auto: {recipe_for(files)[1]}"
    return replace(plan, reasons={**plan.reasons, **reasons})


def check_features_of(network: Network, files: FeatureFiles, dry_run: bool) -> None:
    """Check that a network's head can be solved for on features of files.

    Args:
        network: on its device.
        files: of the features.
        dry_run: the network may have random weights, which are not compared.

    Raises:
        UsageError: it cannot, or the features are of another network.
    """
    if not dry_run:
        files.check(network, feature_batch(network.device))
    freeze(network.module, policy=HEAD)
    forwards = network.forwards
    reason = probe_conflict(network)
    if reason is None:
        images = noise(CHECKED, network.preprocess, seed=0)
        reason, features = check_head_equivalence(network, images)
        if reason is None and features[network.paths[0]][0].numel() != files.width:
            reason = f"the features have {files.width:,} values, and its head reads another number"
    network.forwards = forwards
    if reason is not None:
        message = f"--features cannot train {files.about['backbone']}: {reason}"
        raise UsageError(message, "give --data")


def train_on_features(
    network: Network,
    files: FeatureFiles,
    data: ImageData,
    plan: Plan,
    workers: int | None,
    state: TrainState,
    report: Callable[[EpochEnded], None],
) -> dict[str, Metric]:
    """Solve for the main head, and return the metric of each evaluated split.

    Args:
        network: whose head is replaced; auxiliary heads stay as they are.
        files: of the features.
        data: their splits.
        plan: of the training.
        workers: threads that sum files; None for one a core. The result does not depend on it.
        state: of the training.
        report: is called with the epoch.
    """
    started = time.perf_counter()
    phase = plan.phases[0]
    state.start_phase(0)
    freeze(network.module, policy=phase.policy)
    if phase.optimizer == RIDGE:
        fitted = ridge_files(files, workers or available_cores())
    else:
        fitted = solve_files(files, plan.seed, network.device)
    copy_to_head(network.module.get_submodule(network.paths[0]), fitted)
    state.probe, state.held_out = to_record(fitted), fitted.held_out
    metrics: dict[str, Metric] = {
        name: _evaluate(network, files, data.schema, name)
        for name in ("val", "test")
        if name in files.splits
    }
    values: dict[str, Any] = metrics["val"].compute() if "val" in metrics else {}
    state.epoch = 1
    event = EpochEnded(
        phase=phase.name,
        epoch=1,
        epochs=1,
        lr=0.0,
        train_loss=fitted.loss,
        metrics=values,
        best=True,
        seconds=time.perf_counter() - started,
    )
    state.history.append(event)
    report(event)
    return metrics


def _evaluate(network: Network, files: FeatureFiles, schema: Schema, split: str) -> Metric:
    """Return the metric of a split, from its features."""
    path = network.paths[0]
    head = network.module.get_submodule(path)
    metric = network.task.metric(schema, network.device, None)
    with inference_mode_of(network.module):
        for file in files.paths:
            for features, labels in files.blocks(file, split):
                inputs = features.to(network.device)
                if isinstance(head, nn.Conv2d):
                    inputs = inputs[..., None, None]
                outputs = run_heads(network, {path: inputs}, training=False)
                metric.update(outputs, labels.to(network.device))
    return metric
