"""Resolve the recipe of a training: policy, optimizer and length of each phase."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from zoo.engine.plan.options import EPOCH_OPTIONS, OPTIMIZER, SOLVED, Options
from zoo.engine.plan.plan import LBFGS, RIDGE, Phase
from zoo.errors import UsageError, counted
from zoo.models.base_weights import BaseWeights
from zoo.models.freeze import select_modules
from zoo.models.heads import resolve_head
from zoo.models.stages import find_stages
from zoo.options import Policy, Schedule
from zoo.options.policy import HEAD
from zoo.options.table import RECIPES
from zoo.registry.config import Config
from zoo.spec import Head
from zoo.tasks.base import BaseTask

SGD_FACTOR = 10.0
LATER_FACTOR = 0.1
SCHEDULE = Schedule("cosine")
FIXED_FEATURES = "only heads train, on deterministic images"


class Resolver:
    """Resolves values and collects their reasons.

    Args:
        config: defaults.

    Attributes:
        reasons: reason of each value, by name.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}

    def resolve(self, name: str, given: Any, automatic: Any, reason: str) -> Any:
        """Return the given value, else the automatic one, and record the reason."""
        self.reasons[name] = "as given" if given is not None else f"auto: {reason}"
        return automatic if given is None else given

    def default(self, name: str, given: Any, key: str) -> Any:
        """Return the given value, else the default of `registry.toml`, and record the reason."""
        file = Path(self.config.origins.get(f"defaults.{key}", "registry.toml")).name
        return self.resolve(name, given, self.config.defaults[key], f"{key} in {file}")


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
    """Return the recipe of a training, before the network has been checked.

    Args:
        resolver: records the reasons.
        options: as given.
        base: the weights that training starts from.
        nondeterminism: why images differ between epochs; None if they do not.
        task: of the backbone.
        heads_only: policies by module patterns that match nothing but heads.

    Raises:
        UsageError: the recipe `probe` conflicts with another option; an option has more values than
            there are phases; or views are given and more than heads train.
    """
    name, policies = choose_recipe(resolver, options, base, nondeterminism, task)
    if options.views is not None and any(policy != HEAD for policy in policies):
        message = "--views requires that only heads train: other recipes do not cache features"
        raise UsageError(message, "omit it, or give --recipe probe or head")
    phases = resolve_phases(resolver, options, name, policies, base, nondeterminism, heads_only)
    return Recipe(name, phases)


def fall_back_to_epochs(
    resolver: Resolver, options: Options, base: BaseWeights, reason: str
) -> Recipe:
    """Return the recipe `head`, the fallback of `probe`.

    Args:
        resolver: records the reasons.
        options: as given.
        base: the weights that training starts from.
        reason: why the head cannot be solved.
    """
    resolver.reasons["recipe"] = f"auto: {reason}"
    return Recipe("head", resolve_phases(resolver, options, "head", (HEAD,), base, None))


def train_on_images(resolver: Resolver, recipe: Recipe, reason: str) -> Recipe:
    """Return a recipe with feature caching disabled in every phase.

    Args:
        resolver: records the reasons.
        recipe: to change.
        reason: why features cannot be cached.
    """
    for number, phase in enumerate(recipe.phases):
        if phase.keep_features:
            resolver.reasons[f"phases.{number}.keep_features"] = f"auto: {reason}"
    return replace(
        recipe, phases=tuple(replace(phase, keep_features=False) for phase in recipe.phases)
    )


def with_modules(
    resolver: Resolver, recipe: Recipe, model: nn.Module, heads: Sequence[Head]
) -> Recipe:
    """Return a recipe with the modules that each phase trains.

    Args:
        resolver: records the reasons.
        recipe: to complete.
        model: the network.
        heads: of its backbone.
    """
    phases = []
    for number, phase in enumerate(recipe.phases):
        modules = select_modules(model, heads, phase.policy).roots(model)
        phases.append(replace(phase, modules=modules))
        resolver.reasons[f"phases.{number}.modules"] = _modules_reason(phase.policy, model, heads)
    return replace(recipe, phases=tuple(phases))


def _modules_reason(policy: Policy, model: nn.Module, heads: Sequence[Head]) -> str:
    if policy.kind == "stages":
        stages = find_stages(model, [resolve_head(model, head.path) for head in heads])
        return f"last {policy.stages} of {counted(len(stages), 'stage')}, and the heads"
    reasons = {"all": "every module", "head": "the heads"}
    return reasons.get(policy.kind, "what the patterns match, and the heads")


def choose_recipe(
    resolver: Resolver,
    options: Options,
    base: BaseWeights,
    nondeterminism: str | None,
    task: BaseTask,
) -> tuple[str, tuple[Policy, ...]]:
    """Return the recipe of a training, and the policies of its phases.

    Args:
        resolver: records the reasons.
        options: as given.
        base: the weights that training starts from.
        nondeterminism: why images differ between epochs; None if they do not.
        task: of the backbone.

    Raises:
        UsageError: the recipe `probe` conflicts with another option.
    """
    if options.train is not None:
        resolver.reasons["recipe"] = "as given by --train"
        return str(options.train), (options.train,)
    conflict = probe_conflict(options, nondeterminism, task)
    if options.recipe in SOLVED and conflict is not None:
        if options.features is not None:
            message = f"--features cannot train the head: {conflict}"
            raise UsageError(message, "remove the conflict, or give --data")
        message = f"--recipe {options.recipe} cannot be used: {conflict}"
        raise UsageError(message, "remove the conflict, or give --recipe head")
    automatic, reason = "probe", "pretrained features: linear probe"
    if base.random:
        automatic, reason = "all", "no pretrained weights, so all layers train"
    elif base.untrained:
        reason = f"the weights do not cover {', '.join(base.untrained)}"
        automatic = "all"
    elif conflict is not None:
        automatic, reason = "head", conflict
    recipe = resolver.resolve("recipe", options.recipe, automatic, reason)
    return recipe, tuple(map(Policy.parse, RECIPES[recipe]))


def probe_conflict(options: Options, nondeterminism: str | None, task: BaseTask) -> str | None:
    """Return why heads cannot be solved by L-BFGS; None if they can."""
    for name in EPOCH_OPTIONS:
        if getattr(options, name) is not None:
            return f"--{name.replace('_', '-')} requires training by epochs"
    if nondeterminism is not None:
        return nondeterminism
    if options.build_options.head.hidden:
        return "a head with hidden layers has no unique optimum"
    probe = task.probe(options.criterion)
    return probe if isinstance(probe, str) else None


def solved_phase(optimizer: str = LBFGS) -> Phase:
    """Return the phase of the recipe `probe`, or `ridge`."""
    return Phase(
        name="head",
        policy=HEAD,
        epochs=1,
        optimizer=optimizer,
        lr=0.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule=Schedule("constant"),
        keep_features=True,
    )


def _learning_rate(
    resolver: Resolver, options: Options, number: int, kind: str, optimizer: str
) -> float:
    """Resolve the learning rate of a phase; `kind` is the prefix of its default."""
    rates, name = options.lr, f"phases.{number}.lr"
    if rates and len(rates) == 1 and number > 0:
        lower = rates[0] * LATER_FACTOR
        return float(resolver.resolve(name, None, lower, "a tenth of --lr, to fine-tune"))
    lr = resolver.default(name, rates[number] if rates else None, f"{kind}_lr")
    if rates is None and optimizer == "sgd":
        lr *= SGD_FACTOR
        resolver.reasons[name] += ", times 10 for sgd"
    return float(lr)


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
    prefix = f"phases.{number}."
    epochs = options.epochs
    for name, given in (("epochs", epochs), ("lr", options.lr)):
        if given and len(given) > 1 and number >= len(given):
            message = f"--{name} has {counted(len(given), 'value')}, fewer than there are phases"
            raise UsageError(message, "give one value for all phases, or one for each")
    optimizer = resolver.resolve(
        f"{prefix}optimizer", options.optimizer, OPTIMIZER, "needs the least tuning"
    )
    lr = _learning_rate(resolver, options, number, kind, optimizer)
    cached, reason = False, "layers below the heads train"
    if policy == HEAD or policy in heads_only:
        cached, reason = nondeterminism is None, nondeterminism or FIXED_FEATURES
        if cached and policy != HEAD:
            reason = "the patterns match only heads"
    resolver.reasons[f"{prefix}keep_features"] = f"auto: {reason}"
    return Phase(
        name=str(policy),
        policy=policy,
        epochs=resolver.default(
            f"{prefix}epochs",
            epochs[min(number, len(epochs) - 1)] if epochs else None,
            f"{kind}_epochs",
        ),
        optimizer=optimizer,
        lr=lr,
        momentum=float(resolver.default(f"{prefix}momentum", options.momentum, "momentum")),
        weight_decay=float(
            resolver.default(f"{prefix}weight_decay", options.weight_decay, "weight_decay")
        ),
        schedule=resolver.resolve(
            f"{prefix}schedule", options.schedule, SCHEDULE, "needs no milestones"
        ),
        keep_features=cached,
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
        resolver: records the reasons.
        options: as given.
        recipe: its name.
        policies: of its phases.
        base: the weights that training starts from.
        nondeterminism: why images differ between epochs; None if they do not.
        heads_only: policies by module patterns that match nothing but heads.

    Raises:
        UsageError: an option has more values than there are phases.
    """
    if recipe == "probe":
        resolver.reasons |= {
            "phases.0.optimizer": "auto: optimum of a linear head, cross-validated",
            "phases.0.policy": f"of recipe {recipe}",
            "phases.0.keep_features": f"auto: {FIXED_FEATURES}",
        }
        return (solved_phase(),)
    if recipe == "ridge":
        resolver.reasons |= {
            "phases.0.optimizer": "of recipe ridge: one pass, penalty by cross-validation",
            "phases.0.policy": f"of recipe {recipe}",
            "phases.0.keep_features": "as given by --features",
        }
        return (solved_phase(RIDGE),)
    resolver.reasons |= {f"phases.{n}.policy": f"of recipe {recipe}" for n in range(len(policies))}
    for name, given in (("epochs", options.epochs), ("lr", options.lr)):
        if given and len(given) > len(policies):
            phases = counted(len(policies), "phase")
            message = f"--{name} has {counted(len(given), 'value')}, and {recipe} has {phases}"
            raise UsageError(message, "give one value for all phases, or one for each")
    return tuple(
        _phase(resolver, options, number, policy, base, nondeterminism, heads_only)
        for number, policy in enumerate(policies)
    )
