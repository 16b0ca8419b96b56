"""The phases of a training: what trains in each, by which optimizer, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.engine.plan.options import OF_THE_LOOP, OPTIMIZER, Options
from zoo.engine.plan.plan import LBFGS, Phase, Plan
from zoo.errors import UsageError
from zoo.models.base_weights import BaseWeights
from zoo.options import Policy, Schedule
from zoo.options.policy import HEAD
from zoo.options.table import RECIPES
from zoo.registry.config import Config
from zoo.tasks.base import BaseTask

SGD_FACTOR = 10.0
LATER_FACTOR = 0.1
SCHEDULE = Schedule("cosine")


class Values:
    """Collects values with their reasons."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}

    def take(self, name: str, given: Any, automatic: Any, reason: str) -> Any:
        """Return what was given, or else the automatic value, and note why."""
        self.reasons[name] = "as given" if given is not None else f"auto: {reason}"
        return automatic if given is None else given

    def default(self, name: str, given: Any, key: str) -> Any:
        """Return what was given, or else the default of `registry.toml`, and note why."""
        file = Path(self.config.origins.get(f"defaults.{key}", "registry.toml")).name
        return self.take(name, given, self.config.defaults[key], f"{key} in {file}")


def choose_recipe(
    values: Values, options: Options, start: BaseWeights, changing: str | None, task: BaseTask
) -> tuple[str, tuple[Policy, ...]]:
    """Return the recipe of a training, and the policies of its phases.

    Args:
        values: note why.
        options: as given.
        start: the weights.
        changing: why pictures change from one epoch to the next; None where they do not.
        task: of the backbone.

    Raises:
        UsageError: a probe was asked for, and what it cannot do.
    """
    if options.train is not None:
        values.reasons["recipe"] = "as given by --train"
        return str(options.train), (options.train,)
    against = probe_conflict(options, changing, task)
    if options.recipe == "probe" and against is not None:
        message = f"--recipe probe trains no epochs: {against}"
        raise UsageError(message, "leave that out, or give --recipe head")
    automatic, reason = "probe", "trained features serve as they are; the best head for them"
    if start.random:
        automatic, reason = "all", "random features are not worth freezing"
    elif start.untrained:
        reason = f"the weights have no values for {', '.join(start.untrained)}"
        automatic = "all"
    elif against is not None:
        automatic, reason = "head", against
    recipe = values.take("recipe", options.recipe, automatic, reason)
    return recipe, RECIPES[recipe]


def probe_conflict(options: Options, changing: str | None, task: BaseTask) -> str | None:
    """Return why heads must be trained epoch by epoch; None where they can be solved for."""
    for name in OF_THE_LOOP:
        if getattr(options, name) is not None:
            return f"--{name.replace('_', '-')} is for epochs"
    if changing is not None:
        return changing
    if options.changes.head.hidden:
        return "a head of several layers has no one optimum"
    probe = task.probe(options.loss)
    return probe if isinstance(probe, str) else None


def probe_phase() -> Phase:
    """Return the phase of the recipe `probe`."""
    return Phase(
        name="head",
        policy=HEAD,
        epochs=1,
        optimizer=LBFGS,
        lr=0.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule=Schedule("constant"),
        keep_features=True,
    )


def loop_instead(plan: Plan, number: int, reason: str, defaults: Mapping[str, Any]) -> Plan:
    """Return a plan that trains a head epoch by epoch where its optimum cannot be found at once.

    Args:
        plan: with a phase of the recipe `probe`.
        number: of that phase, from 0.
        reason: why.
        defaults: of `registry.toml`.
    """
    changed = plan.with_phase(
        number,
        f"auto: {reason}",
        epochs=defaults["head_epochs"],
        optimizer=OPTIMIZER,
        lr=float(defaults["head_lr"]),
        momentum=float(defaults["momentum"]),
        weight_decay=float(defaults["weight_decay"]),
        schedule=SCHEDULE,
    )
    return replace(changed, recipe="head", reasons={**changed.reasons, "recipe": f"auto: {reason}"})


def _phase(
    values: Values,
    options: Options,
    number: int,
    policy: Policy,
    start: BaseWeights,
    changing: str | None,
) -> Phase:
    kind = "head" if policy == HEAD else "random" if start.random else "tune" if number else "all"
    where = f"phases.{number}."
    epochs, rates = options.epochs, options.lr
    for name, given in (("epochs", epochs), ("lr", rates)):
        if given and len(given) > 1 and number >= len(given):
            raise UsageError(f"--{name} has {len(given)} values, one for each phase is needed")
    optimizer = values.take(f"{where}optimizer", options.optimizer, OPTIMIZER, "needs least tuning")
    if rates and len(rates) == 1 and number > 0:
        lower = rates[0] * LATER_FACTOR
        lr = values.take(f"{where}lr", None, lower, "a tenth of --lr, to fine-tune")
    else:
        lr = values.default(f"{where}lr", rates[number] if rates else None, f"{kind}_lr")
        if rates is None and optimizer == "sgd":
            lr *= SGD_FACTOR
            values.reasons[f"{where}lr"] += ", times 10 for sgd"
    keep = policy == HEAD and changing is None
    values.reasons[f"{where}keep_features"] = "auto: " + (
        "only heads train, on images that do not change"
        if keep
        else (changing if policy == HEAD and changing else "features change")
    )
    return Phase(
        name=str(policy),
        policy=policy,
        epochs=values.default(
            f"{where}epochs",
            epochs[min(number, len(epochs) - 1)] if epochs else None,
            f"{kind}_epochs",
        ),
        optimizer=optimizer,
        lr=float(lr),
        momentum=float(values.default(f"{where}momentum", options.momentum, "momentum")),
        weight_decay=float(
            values.default(f"{where}weight_decay", options.weight_decay, "weight_decay")
        ),
        schedule=values.take(f"{where}schedule", options.schedule, SCHEDULE, "no length to choose"),
        keep_features=keep,
    )


def phases_of(
    values: Values,
    options: Options,
    recipe: str,
    policies: Sequence[Policy],
    start: BaseWeights,
    changing: str | None,
) -> tuple[Phase, ...]:
    """Return the phases of a recipe.

    Args:
        values: note why.
        options: as given.
        recipe: its name.
        policies: of its phases.
        start: the weights.
        changing: why pictures change from one epoch to the next; None where they do not.

    Raises:
        UsageError: an option has more values than there are phases.
    """
    if recipe == "probe":
        values.reasons |= {
            "phases.0.optimizer": "auto: finds the head's one optimum, with cross-validation",
            "phases.0.policy": f"of {recipe}",
            "phases.0.keep_features": "auto: only heads train, on images that do not change",
        }
        return (probe_phase(),)
    values.reasons |= {f"phases.{n}.policy": f"of {recipe}" for n in range(len(policies))}
    for name, given in (("epochs", options.epochs), ("lr", options.lr)):
        if given and len(given) > len(policies):
            message = f"--{name} has {len(given)} values, but {recipe} has {len(policies)} phase"
            raise UsageError(message + "s" * (len(policies) > 1))
    return tuple(_phase(values, options, n, p, start, changing) for n, p in enumerate(policies))
