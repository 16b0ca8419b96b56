"""The plan of a run: every automatic value replaced by a value and its reason.

A plan is immutable data, resolved before a run folder is created: `--dry-run` prints it, observers
receive it, training follows it, and `run.json` stores it. A value that has to change during
training is recorded as an adjustment, next to the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.data.value_range import describe_ranges
from zoo.options import Augmentation, HeadSpec, Policy, Schedule
from zoo.registry.licenses import in_words
from zoo.spec import Preprocess

LBFGS, RIDGE = "lbfgs", "ridge"
EPOCH_FIELDS = ("epochs", "lr", "momentum", "weight_decay", "schedule")
# Displayed after the phases.
MACHINE_FIELDS = (
    "batch_size",
    "micro_batch_size",
    "device",
    "processes",
    "precision",
    "memory_format",
    "engine",
    "seed",
    "workers",
    "cache_images",
    "bad_images",
)


@dataclass(frozen=True)
class Phase:
    """A part of a training under one policy.

    Args:
        name: as displayed, such as `head` or `all`.
        policy: the parameters that train.
        epochs: passes over the training images.
        optimizer: `sgd`, `adam` or `adamw`; or `lbfgs` or `ridge`, which solve for a head and
            ignore all settings below but `keep_features`.
        lr: learning rate before the schedule's factor.
        momentum: for `sgd`.
        weight_decay: as torch applies it.
        schedule: the factor on the learning rate.
        keep_features: compute the heads' input once per image, and train on cached features.
        modules: dotted paths of the outermost modules that train; `("",)` for the whole network.
    """

    name: str
    policy: Policy
    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    keep_features: bool
    modules: tuple[str, ...] = ()

    @property
    def solved(self) -> bool:
        """Whether a head is solved for, without epochs."""
        return self.optimizer in (LBFGS, RIDGE)

    def to_dict(self) -> dict[str, Any]:
        """Return the phase as plain data for JSON, policy and schedule as text."""
        return {**self.settings(), "modules": self.modules}

    def settings(self) -> dict[str, Any]:
        """Return what determines the weights, as plain data for JSON."""
        values = {**asdict(self), "policy": str(self.policy), "schedule": str(self.schedule)}
        del values["modules"]  # which follow from network and policy
        return values


@dataclass(frozen=True)
class Settings:
    """The values of a plan that do not depend on the weights.

    Args:
        head: the replacement of the main head.
        head_at: paths of the replaced modules.
        augment: augmentation of training images; None for none.
        views: how many augmented views of each training image are cached; 1 without augmentation.
        loss: name of the loss.
        class_weights: weight of each class in the loss; None for equal weights.
        label_smoothing: share of each target that is spread over all classes.
        select: metric that ranks epochs.
        patience: epochs without a better one after which a phase stops; None for no limit.
        batch_size: images per step.
        micro_batch_size: images per forward pass.
        device: as torch names it.
        processes: number that share each batch.
        precision: `fp32` or `bf16`.
        memory_format: of 4-dimensional tensors, `contiguous` or `channels_last`.
        seed: of all randomness.
        workers: number of decoding processes.
        bad_images: `error` or `skip`.
        val_fraction: share held out for validation if the data has no `val` split.
    """

    head: HeadSpec
    head_at: str
    augment: Augmentation | None
    views: int
    loss: str
    class_weights: Mapping[str, float] | None
    label_smoothing: float
    select: str
    patience: int | None
    batch_size: int
    micro_batch_size: int
    device: str
    processes: int
    precision: str
    memory_format: str
    seed: int
    workers: int
    bad_images: str
    val_fraction: float


@dataclass(frozen=True)
class Plan(Settings):
    """A fully resolved run: the settings, and the values that depend on the weights.

    Args:
        backbone: id.
        weights: `none`, a published tag, or a file's name.
        license: of the weights; None if not stated.
        license_kind: one of `zoo.registry.licenses.KINDS`; None for random weights.
        kwargs: builder arguments.
        preprocess: from image to input.
        task: name.
        schema: of the targets, as plain data.
        data: name, fingerprint, and images per split.
        demonstration: whether the embedded data set is used, without the user's.
        recipe: name of the recipe, or of the policy.
        phases: in order.
        engine: that computes the features of frozen phases, a name of `zoo.options.table.ENGINES`.
        cache_images: whether prepared images are cached, each decoded once.
        reasons: reason of each value, by field; `phases.N.field` for a phase's.
    """

    backbone: str
    weights: str
    license: str | None
    license_kind: str | None
    kwargs: Mapping[str, Any]
    preprocess: Preprocess
    task: str
    schema: Mapping[str, Any]
    data: Mapping[str, Any]
    demonstration: bool
    recipe: str
    phases: tuple[Phase, ...]
    engine: str
    cache_images: bool
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON, with head, augmentation and phases as text."""
        texts: dict[str, Any] = {"head": str(self.head), "augment": str(self.augment or "none")}
        # `classes` is repeated at the top level, where readers of `run.json` expect it.
        texts |= {"classes": self.classes, "phases": tuple(p.to_dict() for p in self.phases)}
        return {**asdict(self), **texts}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs; empty for a task without classes."""
        return tuple(self.schema.get("classes", ()))

    def _target_rows(self) -> dict[str, str]:
        """Return the classes by number and name, or every field of another schema."""
        if self.classes:
            return {"classes": f"{len(self.classes)}: {_shorten(', '.join(self.classes))}"}
        return {
            name: _schema_text(value) for name, value in self.schema.items() if name != "classes"
        }

    def _preprocess_text(self) -> str:
        preprocess = self.preprocess
        size = f"{preprocess.height}x{preprocess.width}"
        ranges = describe_ranges(preprocess.ranges)
        return f"{size} {preprocess.crop} {preprocess.interpolation}{ranges and f', {ranges}'}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and reason of each entry, as `--dry-run` prints them."""
        counts = ", ".join(f"{count} {name}" for name, count in self.data["images"].items())
        values: dict[str, Any] = {
            "backbone": self.backbone,
            "task": self.task,
            "weights": self.weights,
            "license": in_words(self.license) if self.license_kind else "none",
            "data": f"{self.data['name']}: {counts}",
            **self._target_rows(),
            "preprocess": self._preprocess_text(),
            "augment": self.augment or "none",
            "views": self.views,
            "head": self.head,
            "head_at": self.head_at,
            "loss": self.loss,
            "class_weights": _weights_text(self.class_weights),
            "label_smoothing": self.label_smoothing,
            "select": self.select,
            "patience": self.patience or "none",
            "recipe": self.recipe,
        }

        def reason(name: str) -> str:
            return self.reasons.get(name, "")

        rows = [(name, str(value), reason(name)) for name, value in values.items()]
        for number, phase in enumerate(self.phases):
            for name, value in phase.to_dict().items():
                if name == "name" or (name == "momentum" and phase.optimizer != "sgd"):
                    continue
                if phase.solved and name in EPOCH_FIELDS:
                    continue
                label = f"{phase.name}: {name}"
                text = _modules_text(value) if name == "modules" else _text(value)
                rows.append((label, text, reason(f"phases.{number}.{name}")))
        for name in MACHINE_FIELDS:
            rows.append((name, _text(getattr(self, name)), reason(name)))
        return rows


def _schema_text(value: Any) -> str:
    """Return a value of a schema as text, lists joined by commas."""
    if isinstance(value, (list, tuple)):
        return _shorten(", ".join(map(_schema_text, value)))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _weights_text(weights: Mapping[str, float] | None) -> str:
    if weights is None:
        return "none"
    return _shorten(", ".join(f"{name} {weight:.3g}" for name, weight in weights.items()))


def _modules_text(paths: Sequence[str]) -> str:
    return "the whole network" if "" in paths else _shorten(", ".join(paths))


def _text(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 4].rstrip(", ") + " ..."
