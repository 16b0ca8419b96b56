"""Trainings of a resolved plan with one of its values replaced."""

from dataclasses import replace

from zoo.engine.plan.options import Options
from zoo.engine.run.finetune import Result, fit
from zoo.engine.run.prepare import prepare
from zoo.registry.registry import load_registry
from zoo.terminal import Progress


def fit_phase(backbone: str, options: Options, keep_features: bool) -> Result:
    """Train the only phase of a plan on cached features, or on images in every epoch."""
    prepared = prepare(backbone, options, load_registry(), Progress(quiet=True))
    (phase,) = prepared.plan.phases
    phases = (replace(phase, keep_features=keep_features),)
    return fit(replace(prepared, plan=replace(prepared.plan, phases=phases)))
