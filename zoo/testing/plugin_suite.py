"""The checks of a plugin's export formats, and of its hooks that observe trainings.

The hooks are called by a training of a tiny network on images of noise, and by one that fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset

from zoo.data.images import noise
from zoo.engine.run.finetune import fit
from zoo.engine.run.prepare import prepare, read_options
from zoo.errors import UsageError, counted, one_line
from zoo.events import Event
from zoo.inference.export.export import load_exporter
from zoo.registry.config import load_config
from zoo.registry.discovery import Plugin, Switches, builtin_plugins
from zoo.registry.hook_manager import Outcome, Results
from zoo.registry.plugins import PluginHost, PluginRecord
from zoo.registry.registry import Registry
from zoo.spec import Preprocess
from zoo.terminal import Progress
from zoo.testing import example
from zoo.testing.findings import Check, CheckFailed, NotApplicable, NotTried
from zoo.testing.runner import OBSERVING, PLUGIN

IMAGES, CLASSES = 12, 3
BACKBONE = "example/tiny"


class _RecordingHost(PluginHost):
    """A plugin host that records the outcome of every observing hook."""

    def __init__(self, plugins: list[Plugin]) -> None:
        super().__init__(Switches(), lambda sentence: None, plugins)
        self.outcomes: list[Outcome] = []

    def call(
        self,
        hook: str,
        event: Event,
        results: Results,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[Any, list[Outcome]]:
        """Call an observing hook, and record the outcomes."""
        returned, outcomes = super().call(hook, event, results, options)
        self.outcomes += outcomes
        return returned, outcomes


@dataclass
class PluginSubject:
    """A plugin under test.

    Args:
        name: of the plugin.
        registry: that it is loaded in.
        causes: as of `zoo.testing.subject.Subject`.
    """

    name: str
    registry: Registry
    causes: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> PluginRecord:
        """Its record."""
        return next(r for r in self.registry.host.records if r.name == self.name)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of its observing hooks in a training, and in one that fails."""
        own = self.record
        module = self.registry.host.manager.get_plugin(self.name)
        observer = Plugin(own.name, own.module, own.distribution, own.version, own.file, module)
        tasks = [plugin for plugin in builtin_plugins() if plugin.name == "tasks"]
        network = Plugin("example", example.__name__, "given", "-", given=example)
        host = _RecordingHost([*tasks, network, observer])
        with tempfile.TemporaryDirectory(prefix="zoo-testing-") as folder:
            # Without the user's defaults.
            config = load_config(None, Path(folder) / "registry.toml")
            _train(Registry(host, config), Path(folder))
        return [outcome for outcome in host.outcomes if outcome.plugin == self.name]


def _fails(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise UsageError("this training fails, to call zoo_on_error")


def _train(registry: Registry, folder: Path) -> None:
    """Train for two epochs, then start a training that fails.

    Args:
        registry: of the observer and the example.
        folder: of the run folders.
    """
    images = noise(IMAGES, Preprocess(size=32), seed=2)
    train = TensorDataset(images, torch.arange(IMAGES) % CLASSES)
    options: dict[str, Any] = {
        "data": {"train": train, "val": Subset(train, range(CLASSES))},
        "classes": CLASSES,
        "weights": "none",
        "device": "cpu",
        "epochs": 2,
        "workers": 0,
        "batch_size": 4,
    }
    quiet = Progress(True)
    fit(prepare(BACKBONE, read_options(**options, out=folder / "done"), registry, quiet))
    failing = read_options(**options, out=folder / "failed", loss=_fails)
    with suppress(UsageError):
        fit(prepare(BACKBONE, failing, registry, quiet))


def observes(hook: str, subject: PluginSubject) -> str:
    """Call an observing hook in a training, and report what it raises."""
    if hook not in subject.record.hooks:
        raise NotApplicable("it does not implement it")
    outcomes = [outcome for outcome in subject.outcomes if outcome.hook == hook]
    if not outcomes:
        raise NotTried("no training of the checks calls it")
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        message = f"it raises in {len(errors)} of {len(outcomes)} calls: {one_line(errors[0])}"
        raise CheckFailed(message)
    return f"called {counted(len(outcomes), 'time')}"


def formats_load(subject: PluginSubject) -> str:
    """Import and instantiate the class of every export format."""
    formats = subject.record.formats
    if not formats:
        raise NotApplicable("it registers no format")
    return ", ".join(f"{each.name}: {type(load_exporter(each)).__name__}" for each in formats)


def _observing(index: int, hook: str) -> Check:
    """Return the check of an observing hook; if the training fails, only the first one fails."""
    names = [f"observes_{each.removeprefix('zoo_')}" for each in OBSERVING]
    requirement = f"{hook} raises nothing in a training"
    needs = tuple(names[:index])
    return Check(names[index], requirement, PLUGIN, partial(observes, hook), needs=needs)


PLUGIN_SUITE = (
    Check("formats_load", "its export formats can be instantiated", PLUGIN, formats_load),
    *map(_observing, range(len(OBSERVING)), OBSERVING),
)
