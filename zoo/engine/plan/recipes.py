"""The phases of a training: what trains in each, by which optimizer, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.engine.plan.options import OF_THE_LOOP, OPTIMIZER, Options
from zoo.engine.plan.plan import LBFGS, Phase
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
UNCHANGING = "only heads train, on images that do not change"


class Resolver:
    """Resolves values, and collects the reason of each.

    Args:
        config: defaults.

    Attributes:
        reasons: why each value is what it is, by name.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}

    def take(self, name: str, given: Any, automatic: Any, reason: str) -> Any:
        """Return what was given, or else the automatic value, and record why."""
        self.reasons[name] = "as given" if given is not None else f"auto: {reason}"
        return automatic if given is None else given

    def default(self, name: str, given: Any, key: str) -> Any:
        """Return what was given, or else the default of `registry.toml`, and record why."""
        file = Path(self.config.origins.get(f"defaults.{key}", "registry.toml")).name
        return self.take(name, given, self.config.defaults[key], f"{key} in {file}")


@dataclass(frozen=True)
class Recipe:
    """A named list of phases.

    Args:
        name: of the recipe, or of the policy of its one phase.
        phases: in order.
    """

    name: str
    phases: tuple[Phase, ...]

    @property
    def on_features(self) -> bool:
        """Whether any phase trains on cached features."""
        return any(phase.keep_features for phase in self.phases)


def resolve_recipe(
    resolver: Resolver,
    options: Options,
    base: BaseWeights,
    nondeterminism: str | None,
    task: BaseTask,
    heads_only: Collection[Policy] = (),
) -> Recipe:
    """Return the recipe of a training, before the network has been tried.

    Args:
        resolver: records why.
        options: as given.
        base: the weights that training starts from.
        nondeterminism: why images change from one epoch to the next; None where they do not.
        task: of the backbone.
        heads_only: policies by module patterns that match nothing but heads.

    Raises:
        UsageError: a probe was asked for, and what it cannot do; an option has more values than
            there are phases; or views, where more than heads trains.
    """
    name, policies = choose_recipe(resolver, options, base, nondeterminism, task)
    if options.views is not None and any(policy != HEAD for policy in policies):
        message = "--views is for training heads alone: elsewhere features change"
        raise UsageError(message, "leave it out, or give --recipe probe or head")
    phases = resolve_phases(resolver, options, name, policies, base, nondeterminism, heads_only)
    return Recipe(name, phases)


def fall_back_to_epochs(
    resolver: Resolver, options: Options, base: BaseWeights, reason: str
) -> Recipe:
    """Return the recipe `head`, which stands in for `probe` where that cannot solve for the head.

    Args:
        resolver: records why.
        options: as given.
        base: the weights that training starts from.
        reason: why the head cannot be solved for.
    """
    resolver.reasons["recipe"] = f"auto: {reason}"
    return Recipe("head", resolve_phases(resolver, options, "head", RECIPES["head"], base, None))


def train_on_images(resolver: Resolver, recipe: Recipe, reason: str) -> Recipe:
    """Return a recipe no phase of which trains on cached features.

    Args:
        resolver: records why.
        recipe: whose phases are changed.
        reason: why features cannot be cached.
    """
    for number, phase in enumerate(recipe.phases):
        if phase.keep_features:
            resolver.reasons[f"phases.{number}.keep_features"] = f"auto: {reason}"
    return replace(
        recipe, phases=tuple(replace(phase, keep_features=False) for phase in recipe.phases)
    )


def choose_recipe(
    resolver: Resolver,
    options: Options,
    base: BaseWeights,
    nondeterminism: str | None,
    task: BaseTask,
) -> tuple[str, tuple[Policy, ...]]:
    """Return the recipe of a training, and the policies of its phases.

    Args:
        resolver: records why.
        options: as given.
        base: the weights that training starts from.
        nondeterminism: why images change from one epoch to the next; None where they do not.
        task: of the backbone.

    Raises:
        UsageError: a probe was asked for, and what it cannot do.
    """
    if options.train is not None:
        resolver.reasons["recipe"] = "as given by --train"
        return str(options.train), (options.train,)
    against = probe_conflict(options, nondeterminism, task)
    if options.recipe == "probe" and against is not None:
        message = f"--recipe probe trains no epochs: {against}"
        raise UsageError(message, "leave that out, or give --recipe head")
    automatic, reason = "probe", "pretrained features: linear probe"
    if base.random:
        automatic, reason = "all", "random features are not worth freezing"
    elif base.untrained:
        reason = f"the weights have no values for {', '.join(base.untrained)}"
        automatic = "all"
    elif against is not None:
        automatic, reason = "head", against
    recipe = resolver.take("recipe", options.recipe, automatic, reason)
    return recipe, RECIPES[recipe]


def probe_conflict(options: Options, nondeterminism: str | None, task: BaseTask) -> str | None:
    """Return why heads must be trained epoch by epoch; None where they can be solved for."""
    for name in OF_THE_LOOP:
        if getattr(options, name) is not None:
            return f"--{name.replace('_', '-')} is for epochs"
    if nondeterminism is not None:
        return nondeterminism
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


def _phase(
    resolver: Resolver,
    options: Options,
    number: int,
    policy: Policy,
    base: BaseWeights,
    nondeterminism: str | None,
    heads_only: Collection[Policy],
) -> Phase:
    kind = "head" if policy == HEAD else "random" if base.random else "tune" if number else "all"
    where = f"phases.{number}."
    epochs, rates = options.epochs, options.lr
    for name, given in (("epochs", epochs), ("lr", rates)):
        if given and len(given) > 1 and number >= len(given):
            raise UsageError(f"--{name} has {len(given)} values, one for each phase is needed")
    why = "needs least tuning"
    optimizer = resolver.take(f"{where}optimizer", options.optimizer, OPTIMIZER, why)
    if rates and len(rates) == 1 and number > 0:
        lower = rates[0] * LATER_FACTOR
        lr = resolver.take(f"{where}lr", None, lower, "a tenth of --lr, to fine-tune")
    else:
        lr = resolver.default(f"{where}lr", rates[number] if rates else None, f"{kind}_lr")
        if rates is None and optimizer == "sgd":
            lr *= SGD_FACTOR
            resolver.reasons[f"{where}lr"] += ", times 10 for sgd"
    keep, why = False, "features change"
    if policy == HEAD or policy in heads_only:
        keep, why = nondeterminism is None, nondeterminism or UNCHANGING
        if keep and policy != HEAD:
            why = "the patterns name nothing but heads"
    resolver.reasons[f"{where}keep_features"] = f"auto: {why}"
    return Phase(
        name=str(policy),
        policy=policy,
        epochs=resolver.default(
            f"{where}epochs",
            epochs[min(number, len(epochs) - 1)] if epochs else None,
            f"{kind}_epochs",
        ),
        optimizer=optimizer,
        lr=float(lr),
        momentum=float(resolver.default(f"{where}momentum", options.momentum, "momentum")),
        weight_decay=float(
            resolver.default(f"{where}weight_decay", options.weight_decay, "weight_decay")
        ),
        schedule=resolver.take(
            f"{where}schedule", options.schedule, SCHEDULE, "needs no milestones"
        ),
        keep_features=keep,
    )


def resolve_phases(
    resolver: Resolver,
    options: Options,
    recipe: str,
    policies: Sequence[Policy],
    base: BaseWeights,
    nondeterminism: str | None,
    heads_only: Collection[Policy] = (),
) -> tuple[Phase, ...]:
    """Return the phases of a recipe.

    Args:
        resolver: records why.
        options: as given.
        recipe: its name.
        policies: of its phases.
        base: the weights that training starts from.
        nondeterminism: why images change from one epoch to the next; None where they do not.
        heads_only: policies by module patterns that match nothing but heads.

    Raises:
        UsageError: an option has more values than there are phases.
    """
    if recipe == "probe":
        resolver.reasons |= {
            "phases.0.optimizer": "auto: optimum of a linear head, cross-validated",
            "phases.0.policy": f"of {recipe}",
            "phases.0.keep_features": f"auto: {UNCHANGING}",
        }
        return (probe_phase(),)
    resolver.reasons |= {f"phases.{n}.policy": f"of {recipe}" for n in range(len(policies))}
    for name, given in (("epochs", options.epochs), ("lr", options.lr)):
        if given and len(given) > len(policies):
            message = f"--{name} has {len(given)} values, but {recipe} has {len(policies)} phase"
            raise UsageError(message + "s" * (len(policies) > 1))
    return tuple(
        _phase(resolver, options, number, policy, base, nondeterminism, heads_only)
        for number, policy in enumerate(policies)
    )
