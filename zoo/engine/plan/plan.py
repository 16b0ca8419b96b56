"""The plan of a run: every automatic value replaced by a value and its reason.

A plan is data. It is resolved once, before a run folder is made, and never changes: `--dry-run`
prints it, observers get it, training follows it, and `run.json` stores it. What must give way while
a training runs is an adjustment, recorded beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.options import Augmentation, HeadSpec, Policy, Schedule
from zoo.registry.licenses import in_words
from zoo.spec import Preprocess

LBFGS = "lbfgs"
OF_EPOCHS = ("epochs", "lr", "momentum", "weight_decay", "schedule")


@dataclass(frozen=True)
class Phase:
    """One stretch of training under one policy.

    Args:
        name: for people: `head`, `all`.
        policy: which parameters train.
        epochs: passes over the training images.
        optimizer: `sgd`, `adam` or `adamw`; or `lbfgs`, which runs to the optimum of a head and
            ignores the settings below.
        lr: learning rate before the schedule's factor.
        momentum: for `sgd`.
        weight_decay: as torch applies it.
        schedule: the factor on the learning rate.
        keep_features: compute the heads' input once per image, and train on cached features.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the phase as plain data for JSON, policy and schedule as text."""
        return {**asdict(self), "policy": str(self.policy), "schedule": str(self.schedule)}


@dataclass(frozen=True)
class Plan:
    """A run, fully resolved.

    Args:
        backbone: id.
        weights: `none`, a published tag, or a file's name.
        license: of the weights; None where it is not stated.
        license_kind: one of `zoo.registry.licenses.KINDS`; None for random weights.
        kwargs: builder arguments.
        preprocess: from image to input.
        task: name.
        schema: what the targets are, as plain data.
        head: what replaces the main head.
        head_at: paths of what is replaced.
        augment: the random changes to training images; None where there are none.
        views: how many augmented views of each training image are cached; 1 where none are.
        loss: what is minimised.
        data: name, fingerprint, and images per split.
        demonstration: whether the embedded set stands in for the user's own.
        recipe: name of the recipe, or of the policy.
        phases: in order.
        batch_size: images per step.
        micro_batch_size: images that go through the network at once.
        device: as torch names it.
        processes: how many share each batch.
        precision: `fp32` or `bf16`.
        memory_format: tensor memory format, such as `channels_last`.
        seed: of all randomness.
        workers: processes that decode.
        cache_images: whether prepared images are cached, so that each is decoded once.
        bad_images: `error` or `skip`.
        val_fraction: how much of each class is held out where the data has no val split.
        reasons: why each value is what it is, by field; `phases.N.field` for a phase's.
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
    head: HeadSpec
    head_at: str
    augment: Augmentation | None
    views: int
    loss: str
    phases: tuple[Phase, ...]
    batch_size: int
    micro_batch_size: int
    device: str
    processes: int
    precision: str
    memory_format: str
    seed: int
    workers: int
    cache_images: bool
    bad_images: str
    val_fraction: float
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON, its head, augmentation and the like as text."""
        texts: dict[str, Any] = {"head": str(self.head), "augment": str(self.augment or "none")}
        # `classes` stands at the top too, where readers of `run.json` look for it.
        texts |= {"classes": self.classes, "phases": tuple(p.to_dict() for p in self.phases)}
        return {**asdict(self), **texts}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs; empty for a task without classes."""
        return tuple(self.schema.get("classes", ()))

    def _target_rows(self) -> dict[str, str]:
        """Return what the targets are: the classes, or every field of another schema."""
        if self.classes:
            return {"classes": f"{len(self.classes)}: {_shorten(', '.join(self.classes))}"}
        return {name: _listed(value) for name, value in self.schema.items() if name != "classes"}

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and reason of everything, for people."""
        counts = ", ".join(f"{count} {name}" for name, count in self.data["images"].items())
        size = f"{self.preprocess.height}x{self.preprocess.width}"
        values: dict[str, Any] = {
            "backbone": self.backbone,
            "task": self.task,
            "weights": self.weights,
            "license": in_words(self.license) if self.license_kind else "none",
            "data": f"{self.data['name']}: {counts}",
            **self._target_rows(),
            "preprocess": f"{size} {self.preprocess.crop} {self.preprocess.interpolation}",
            "augment": self.augment or "none",
            "views": self.views,
            "head": self.head,
            "head_at": self.head_at,
            "loss": self.loss,
            "recipe": self.recipe,
        }

        def reason(name: str) -> str:
            return self.reasons.get(name, "")

        rows = [(name, str(value), reason(name)) for name, value in values.items()]
        for number, phase in enumerate(self.phases):
            for name, value in phase.to_dict().items():
                if name == "name" or (name == "momentum" and phase.optimizer != "sgd"):
                    continue
                if phase.optimizer == LBFGS and name in OF_EPOCHS:
                    continue
                why = reason(f"phases.{number}.{name}")
                rows.append((f"{phase.name}: {name}", _shown(value), why))
        for name in (
            "batch_size",
            "micro_batch_size",
            "device",
            "processes",
            "precision",
            "memory_format",
            "seed",
            "workers",
            "cache_images",
            "bad_images",
        ):
            rows.append((name, _shown(getattr(self, name)), reason(name)))
        return rows


def _listed(value: Any) -> str:
    """Return a value of a schema for people, each name or number of a list."""
    if isinstance(value, (list, tuple)):
        return _shorten(", ".join(map(_listed, value)))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 4].rstrip(", ") + " ..."
