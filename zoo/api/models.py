"""Name trained models, for `zoo.load`, `zoo.finetune` and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.options.arguments import names_arguments
from zoo.registry.names import name_of
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.options.given import NameOrPath
    from zoo.registry.own_models import OwnModel


@names_arguments
def register_model(name: str, run: NameOrPath, *, replace: bool = False) -> OwnModel:
    """Name the model of a run, which stays where it is.

    Args:
        name: of letters, digits, `-`, `_` and `.`.
        run: a run folder, a model file, or another registered name.
        replace: give the name to another model.

    Raises:
        UsageError: the name is invalid, or is that of a backbone or of another model.
        WeightsError: there is no model, its training is not finished, or it is damaged.
        EnvironmentProblem: the name cannot be written.
    """
    from zoo.inference.registration import register_own_model

    return register_own_model(name, name_of(run), load_registry(), replace)


@names_arguments
def unregister_model(name: str) -> OwnModel:
    """Remove the name of a model, whose file stays, and return what it named.

    Args:
        name: of a registered model.

    Raises:
        UsageError: no model has it.
    """
    from zoo.registry.own_models import remove_own_model

    return remove_own_model(name)


def list_models() -> list[OwnModel]:
    """Return the registered models by name; damaged entries are reported and left out."""
    from zoo.registry.own_models import list_own_models

    return list_own_models()
