"""Build the network of a training on its weights."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from zoo.engine.plan.resolve import Settings
from zoo.engine.run.data_checks import check_same_weights
from zoo.engine.run.inputs import Inputs
from zoo.engine.runtime.distributed import Ranks, fail_together
from zoo.errors import BrokenBackbone, WeightsError
from zoo.models.base_weights import BaseWeights, resolve_base
from zoo.models.build import build
from zoo.models.build_options import options_refused
from zoo.models.input_size import check_size, smallest_size
from zoo.models.provenance import provenance_of
from zoo.models.weights import NotLocal, check_reachable
from zoo.registry.discovery import BUILTIN
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.terminal import Progress

DEMONSTRATION_SIZES = (96, 128, 160, 192)


def build_network(
    inputs: Inputs, settings: Settings, progress: Progress, ranks: Ranks
) -> tuple[nn.Module, Inputs]:
    """Build the network on its weights; in a demonstration, fall back to random ones.

    Returns:
        The network, and the inputs with the weights as loaded.
    """
    with fail_together(ranks):
        model, failure = _build_on_weights(inputs, settings)
    # If one process cannot load the weights, none uses them.
    with fail_together(ranks):
        failure = next(filter(None, ranks.gather(failure)), None)
    with fail_together(ranks):
        if failure is not None:
            random = resolve_base(inputs.described, "none", inputs.options.build_options)
            inputs = replace(inputs, base=replace(random, reason=f"auto: {failure}"))
            progress.notice(
                f"DEMONSTRATION: pretrained weights are not available ({failure}); "
                f"all layers train from RANDOM weights, so expect a low accuracy"
            )
            model, _ = _build_on_weights(inputs, settings)
        assert model is not None
        loaded = provenance_of(model).base
        if loaded.kind == inputs.base.kind:
            inputs = replace(inputs, base=loaded)
        inputs = replace(inputs, base=_fit_input_size(inputs, model))
    with fail_together(ranks):
        check_same_weights(inputs.base, ranks)
    return model, inputs


def _build_on_weights(inputs: Inputs, settings: Settings) -> tuple[nn.Module | None, str | None]:
    """Build the network; in a demonstration, return why weights are not available instead."""
    described, options, base = inputs.described, inputs.options, inputs.base
    schema, head, seed = inputs.data.schema, options.build_options.head, settings.seed
    arguments = schema.outputs, seed, head, inputs.dry_run, schema.output_names
    try:
        try:
            return build(described, base, *arguments), None
        except NotLocal:
            if inputs.demonstration and options.weights == "auto" and base.published:
                check_reachable(described, base.published)
            # Neither structure nor precision depends on the values of the weights.
            random = replace(base, kind="none", license=None)
            return build(described, random, *arguments), None
    except BrokenBackbone as error:
        raise options_refused(inputs.backbone, options.build_options, error) from error
    except WeightsError as error:
        if base.kind == "file":
            raise
        if options.data is not None or options.weights != "auto":
            raise _unavailable(inputs.backbone, inputs.registry, error) from error
        return None, error.message


def _fit_input_size(inputs: Inputs, model: nn.Module) -> BaseWeights:
    """Check the given input size; in a demonstration on random weights, choose a small one.

    Returns:
        The weights, with the preprocess of the training.
    """
    base, options = inputs.base, inputs.options
    if options.input_size is not None:
        check_size(model, inputs.backbone, options.input_size)
    elif base.random and inputs.demonstration and not inputs.backbone.fixed_size:
        size = smallest_size(model, base.preprocess, DEMONSTRATION_SIZES)
        return replace(
            base,
            preprocess=replace(base.preprocess, size=size, resize=None),
            preprocess_reason=f"auto: {size} px, for a demonstration on random weights",
        )
    return base


def _unavailable(backbone: Backbone, registry: Registry, error: WeightsError) -> WeightsError:
    """Return an error for unavailable weights whose hint lists the alternatives."""
    installed = [
        other.id
        for name, source in registry.sources.items()
        if name not in BUILTIN  # none of these install weights
        for other in map(source.get, source.names())
        if other.weights and other.weights[0].file
    ]
    names = f" ({', '.join(installed[:3])})" if installed else ""
    hint = f"give --weights FILE, or --weights none, or a backbone with installed weights{names}"
    hint = f"{hint}, or {error.hint}" if error.hint else hint
    return WeightsError(f"the weights of {backbone.id} are not available: {error.message}", hint)
