"""Predict, evaluate, and compute features with trained models and pretrained backbones."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from zoo.errors import UnknownBackbone
from zoo.options.arguments import check_arguments, names_arguments
from zoo.options.readers import weights_text
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.inference.predictor import Predictor as Model
    from zoo.inference.rank import Rank
    from zoo.options.given import (
        BadImages,
        Engine,
        FilePath,
        Images,
        NameOrPath,
        Precision,
        UserColumns,
        UserMetrics,
    )
    from zoo.results import Metrics, Prediction


@names_arguments
def load(
    path: NameOrPath | Backbone,
    device: str = "auto",
    precision: Precision | None = None,
    *,
    weights: NameOrPath | None = None,
    engine: Engine | None = None,
) -> Model:
    """Load a model file, the one of a run folder, or a pretrained backbone with its classes.

    Args:
        path: a `model.safetensors` or a run folder; or a backbone or its name.
        device: as torch names it, or `auto`.
        precision: `fp32` or `bf16`; None for `fp32` with published weights, and else for that of
            the training, or `fp32` where the device would emulate it.
        weights: of a backbone: `auto`, a published tag, or a model file of it.
        engine: of the features before the heads, `auto` or the name of one.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
        UsageError: the backbone has no published weights that name classes.
    """
    from zoo.inference.loading import load_any, load_model

    check_arguments(engine=engine)
    name, registry, engine = name_of(path), load_registry(), engine or "auto"
    chosen = None if weights is None else weights_text(weights)
    try:
        return load_any(name, registry, chosen, device, precision, engine)
    except UnknownBackbone as error:
        if error.query != name:
            raise  # of a model file
        return load_model(name, registry, device, precision, engine)


@overload
def evaluate(
    path: NameOrPath | Backbone,
    data: Any = None,
    *,
    split: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    bad_images: BadImages = "error",
    metrics: None = None,
    columns: UserColumns | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    weights: NameOrPath | None = None,
    engine: Engine | None = None,
) -> Metrics: ...


@overload
def evaluate(
    path: NameOrPath | Backbone,
    data: Any = None,
    *,
    split: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    bad_images: BadImages = "error",
    metrics: UserMetrics,
    columns: UserColumns | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    weights: NameOrPath | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]: ...


@names_arguments
def evaluate(
    path: NameOrPath | Backbone,
    data: Any = None,
    *,
    split: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    bad_images: BadImages = "error",
    metrics: UserMetrics | None = None,
    columns: UserColumns | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    weights: NameOrPath | None = None,
    engine: Engine | None = None,
) -> Metrics | dict[str, Any]:
    """Evaluate a model file, a run folder or a pretrained backbone on a data source.

    Args:
        path: as for `load`.
        data: as for `finetune`; None for the embedded data set.
        split: by default `test` if there is one, else `val`; as for `Model.evaluate`.
        batch_size: images per forward pass.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        metrics: additional ones by name, called with all outputs and targets.
        columns: of a table, as for `finetune`.
        device: as torch names it, or `auto`.
        precision: as for `load`.
        weights: as for `load`.
        engine: as for `load`.

    Returns:
        As `Model.evaluate`; for classification `loss`, `top1` and `top5` in 0..1, and more.

    Raises:
        WeightsError, UsageError: as `load`.
        DataError: the data cannot be used, or has classes unknown to the model.
    """
    model = load(path, device, precision, weights=weights, engine=engine)
    return model.evaluate(data, split, batch_size, workers, bad_images, metrics, columns)


@names_arguments
def predict(
    name: NameOrPath | Backbone,
    images: Images,
    top: int = 5,
    device: str = "auto",
    *,
    weights: NameOrPath | None = None,
    precision: Precision | None = None,
    batch_size: int = 32,
    out: FilePath | None = None,
    explain: FilePath | bool | None = False,
    min_probability: float | None = None,
    engine: Engine | None = None,
) -> builtins.list[Prediction]:
    """Predict images with a model file, a run folder, or a pretrained backbone.

    Args:
        name: as for `load`.
        images: as for `Model.predict`; one or many.
        top: number of classes per image, if the task ranks classes.
        device: as torch names it, or `auto`.
        weights: as for `load`.
        precision: as for `load`.
        batch_size: images per forward pass.
        out: folder for files of the predictions, such as masks; None to write none.
        explain: whether to write activation maps beside the images, as `IMAGE.explain.png`; or the
            folder to write them into.
        min_probability: of an answer, in 0..1; None for no answers.
        engine: as for `load`.

    Returns:
        As `Model.predict`; for classification `path` and `predictions: [{class, probability}]` of
        each image, or `path` and `error`.

    Raises:
        WeightsError, UsageError: as `load`.
        EnvironmentProblem: a file of `out` or `explain` cannot be written.
    """
    from zoo.inference.loading import load_any

    chosen = None if weights is None else weights_text(weights)
    check_arguments(engine=engine)
    registry = load_registry()
    model = load_any(name_of(name), registry, chosen, device, precision, engine or "auto")
    given = images, top, batch_size, out
    return model.predict(*given, explain=explain, min_probability=min_probability)


@names_arguments
def embed(
    name: NameOrPath | Backbone,
    data: Any,
    out: FilePath,
    *,
    classes: int | None = None,
    columns: UserColumns | None = None,
    workers: int | None = None,
    bad_images: BadImages = "error",
    device: str = "auto",
    part: str | None = None,
    engine: Engine | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the features of a data set to a file; `features` returns those of a few images.

    A `.safetensors` file also has labels, classes and paths; for `.npy` they are in a `.json` file
    beside it. Features are cached, as those of a training.

    Args:
        name: backbone or its name, model file or run folder.
        data: images in files, as for `finetune`, or a folder of them; or a tar file of WebDataset,
            or a pattern of tar files, each of which gets its own file.
        out: path of a `.safetensors` or `.npy` file; for shards a folder, in which files that exist
            are skipped.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table, as for `finetune`.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        device: as torch names it, or `auto`.
        part: `I/N`, the part of the shards to compute, for one of N jobs.
        engine: of features, `auto` or the name of one.
        quiet: write nothing to stderr.

    Returns:
        `path`, `images`, `width`, `backbone_forwards`, `engine`, and `bad_images`: reasons by
        path; of shards also `shards`, `failed`, `labels`, `unlabelled` and `other_members`.

    Raises:
        UsageError: the suffix is unknown, or the network does not have exactly one main head.
        DataError: the data cannot be used, or shards failed, after the others are done.
        WeightsError: the model cannot be loaded.
    """
    from zoo.inference.embed import embed as write
    from zoo.inference.embed_shards import raise_failed
    from zoo.options.columns import read_columns
    from zoo.options.part import Part
    from zoo.terminal import Progress

    given = {"workers": workers, "bad_images": bad_images, "engine": engine}
    check_arguments("out", out=out, classes=classes, **given)
    summary = write(
        name_of(name),
        data,
        Path(out),
        load_registry(),
        Progress(quiet),
        classes=classes,
        columns=None if columns is None else read_columns(columns),
        workers=workers,
        bad_images=bad_images,
        device=device,
        part=None if part is None else Part.parse(part),
        engine=engine or "auto",
    )
    if "failed" in summary:
        raise_failed(summary)
    return summary


@names_arguments
def rank(
    *patterns: str | Backbone,
    data: Any,
    classes: int | None = None,
    columns: UserColumns | None = None,
    group: str | None = None,
    group_by: str | None = None,
    max_params: int | None = None,
    limit: int = 20,
    workers: int | None = None,
    bad_images: BadImages = "error",
    device: str = "auto",
    seed: int = 0,
    engine: Engine | None = None,
    quiet: bool = True,
) -> list[Rank]:
    """Rank pretrained backbones by how well their frozen features separate the classes of images.

    Args:
        patterns: of names or ids, or backbones; without any, one of each kind of network.
        data: labelled images in files, as for `finetune`.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table, as for `finetune`.
        group: column of a table whose groups stay in one fold.
        group_by: expression that finds the group in a path.
        max_params: largest number of parameters; None for 30 million without a pattern.
        limit: largest number of candidates.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        device: as torch names it, or `auto`.
        seed: of the folds.
        engine: of features, `auto` or the name of one.
        quiet: write nothing to stderr.

    Returns:
        The best first; each with `backbone`, `accuracy` of a linear probe over five folds, `knn`,
        and `error` if it failed.

    Raises:
        UsageError: no backbone with published weights matches.
        DataError: the data cannot be used, or have no classes.
        ZooError: every candidate failed; the error of the first.
    """
    from zoo.inference.rank import rank_all
    from zoo.options.columns import read_columns
    from zoo.terminal import Progress

    counts = {"limit": limit, "seed": seed, "classes": classes, "max_params": max_params}
    check_arguments("limit", "seed", **counts)
    check_arguments(workers=workers, bad_images=bad_images, engine=engine)
    ranks = rank_all(
        [each if isinstance(each, str) else name_of(each) for each in patterns],
        data,
        load_registry(),
        Progress(quiet),
        classes=classes,
        columns=None if columns is None else read_columns(columns),
        group=group,
        group_by=group_by,
        max_params=max_params,
        limit=limit,
        workers=workers,
        bad_images=bad_images,
        device=device,
        seed=seed,
        engine=engine or "auto",
    )
    if ranks[0].error:  # of all candidates, since failures are last
        raise ranks[0].error
    return ranks
