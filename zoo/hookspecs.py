"""Every hook that a plugin may implement.

A plugin is a module named by an entry point of the group `zoo`; the entry point's name is the
source in a backbone's id. Every command that needs the registry imports the module, so it must
import nothing heavy: no torch, no timm.

    [project.entry-points.zoo]
    leafnet = "leafnet.plugin"

A training calls the observing hooks in its own thread and ignores what they return. They cannot
change it: events are copies, random generators and torch's modes are restored after each call, and
an observer that raises is a warning. Only `zoo_should_stop` can end a training, after an epoch.
Under `torchrun`, rank 0 calls them.

Every event has `run_id` (of the training, 32 hexadecimal digits, also in `run.json`), `rank` (of
the process that calls) and `world` (the number of processes); `event.as_dict()` returns it as data
for JSON. Fields are immutable; `json.dumps(event.plan)` and `dataclasses.asdict(event)` work.

`options` are the plugin's own, registered by `zoo_register_options`; as with any hook of pluggy, an
implementation names only the arguments that it needs.

Hooks are pluggy's, and so are `tryfirst`, `trylast` and wrappers. A wrapper
(`@zoo.hookimpl(wrapper=True)`) runs around the implementations of all plugins. An implementation
that raises is a failure of its plugin and does not stop the wrapper; a wrapper that raises is a
failure of the wrapper's plugin. Around a collecting hook, a wrapper receives one list of records
per plugin and returns the lists to register instead. A record with a `source`, modified or not,
belongs to that plugin; a record without one belongs to the wrapper's plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoo.events import (
        EpochEnded,
        FirstBatchRead,
        FitEnded,
        FitFailed,
        FitStarted,
        ResultsCollected,
        StepEnded,
    )
    from zoo.sections import Section
    from zoo.spec import (
        AddedWeights,
        Backbone,
        ExportFormat,
        Family,
        PluginOption,
        Task,
        WeightFile,
    )

# The version of the plugin interface: hooks, records and their fields, events. The minor version
# grows with an addition, the major version with a change that a plugin may have to follow.
INTERFACE = "1.2"

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_register_backbones() -> Iterable[Backbone | Family]:
    """Yield the backbones of this plugin.

    Called once per process, when the registry is first needed; yields `zoo.Backbone`, or
    `zoo.Family` for many at once. If any of them is invalid, the whole plugin is left out, with one
    line of warning.

    Example:
        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone(
                name="leafnet",
                builder="leafnet.model:build",
                heads=(zoo.Head("classifier[6]"),),
                preprocess=zoo.Preprocess(size=224),
            )
    """
    raise NotImplementedError


@hookspec
def zoo_register_weights() -> Iterable[WeightFile | AddedWeights]:
    """Yield the weights that this plugin provides for backbones of other plugins.

    A `zoo.WeightFile` is a copy of a published file in an installed package. It replaces the
    download of all weights with its digest, and is checked on every load. `zoo.AddedWeights` are
    further weights of a backbone, with a tag of their own. Weights for a plugin that is not
    installed or switched off are ignored; a tag belongs to the backbone's plugin, then to the first
    in loading order.

    Called once per process, when the registry is first needed. If any of them is invalid, the whole
    plugin is left out, with one line of warning. A file that is missing or damaged is skipped.

    Example:
        @zoo.hookimpl
        def zoo_register_weights():
            yield zoo.WeightFile(
                file="leafnet:resnet18-f37072fd.pth",
                sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            )
            yield zoo.AddedWeights(
                backbone="torchvision/resnet18",
                weights=zoo.Weights("leaves", file="leafnet:leaves.safetensors", num_classes=7),
            )
    """
    raise NotImplementedError


@hookspec
def zoo_register_tasks() -> Iterable[Task]:
    """Yield the tasks of this plugin: kinds of predictions that networks can be trained for.

    Called once per process, when the registry is first needed. A name belongs to one plugin: to
    zoo for a built-in task, else to the first in loading order. A later plugin with the same name,
    or one whose task is invalid, is left out whole, with one line of warning.

    Example:
        @zoo.hookimpl
        def zoo_register_tasks():
            yield zoo.Task(
                name="leaf-counting",
                summary="the number of leaves on each image",
                target="leafnet.counting:LeafCounting",
            )
    """
    raise NotImplementedError


@hookspec
def zoo_register_formats() -> Iterable[ExportFormat]:
    """Yield the formats of this plugin: files of networks that other programs run.

    `zoo export MODEL --format NAME` writes them. Called once per process, when the registry is
    first needed. A name belongs to one plugin: to zoo for a built-in format, else to the first in
    loading order. A later plugin with the same name, or one whose format is invalid, is left out
    whole, with one line of warning.

    Example:
        @zoo.hookimpl
        def zoo_register_formats():
            yield zoo.ExportFormat(
                name="leaf-chip",
                summary="one file for the chips of leafnet",
                target="leafnet.chip:ChipExporter",
            )
    """
    raise NotImplementedError


@hookspec
def zoo_register_options() -> Iterable[PluginOption]:
    """Yield the options of this plugin, which its observing hooks receive as `options`.

    A user sets them in the table `[plugins.NAME]` of `registry.toml`, or by the environment
    variable `ZOO_PLUGIN_NAME_OPTION`, which comes first. An unknown key or an invalid value is an
    error before a training starts. If an option is invalid, the whole plugin is left out, with one
    line of warning.

    Example:
        @zoo.hookimpl
        def zoo_register_options():
            yield zoo.PluginOption("interval", 10, "epochs between two reports", minimum=1)
    """
    raise NotImplementedError


@hookspec
def zoo_before_fit(event: FitStarted, options: Mapping[str, Any]) -> None:
    """Observe that training is about to begin: the network is built and the run folder exists.

    Not called for errors raised earlier, such as a data folder without images.

    Example:
        @zoo.hookimpl
        def zoo_before_fit(event):
            print(event.backbone, event.plan["seed"])
    """


@hookspec
def zoo_on_first_batch(event: FirstBatchRead, options: Mapping[str, Any]) -> None:
    """Observe the first batch of images that a training reads; called once.

    Where features of frozen layers are cached, it is the first batch they are computed from.

    Example:
        @zoo.hookimpl
        def zoo_on_first_batch(event):
            print(event.images.shape, [event.classes[label] for label in event.labels])
    """


@hookspec
def zoo_after_step(event: StepEnded, options: Mapping[str, Any]) -> None:
    """Observe a step of the optimizer; not called where a head is solved for by a linear probe.

    The loss is read from the device for it; without an implementation, nothing is computed.

    Example:
        @zoo.hookimpl
        def zoo_after_step(event):
            print(event.epoch, event.step, event.steps)
    """


@hookspec
def zoo_after_epoch(event: EpochEnded, options: Mapping[str, Any]) -> None:
    """Observe the end of an epoch, after its validation.

    Example:
        @zoo.hookimpl
        def zoo_after_epoch(event):
            print(event.epoch, event.metrics["top1"])
    """


@hookspec
def zoo_should_stop(event: EpochEnded, options: Mapping[str, Any]) -> str | None:
    """Return why the training is to stop after this epoch, or None.

    Called after `zoo_after_epoch`. The first of several reasons counts. The best epoch so far is
    restored and evaluated, and the run folder written. `adjustments` in `run.json` has the reason
    and the plugin: `epochs` with those trained of the phase, `phases` where later ones are left
    out.

    Example:
        @zoo.hookimpl
        def zoo_should_stop(event):
            if event.train_loss < 1e-6:
                return "the training images are fitted"
    """


@hookspec
def zoo_report_sections(
    event: ResultsCollected, options: Mapping[str, Any]
) -> Iterable[Section] | None:
    """Return sections to add to the report of a training, or None.

    Called once, after the last evaluation. The sections are data of `zoo.sections`: text, numbers,
    tables, charts and small images. They are stored with the run, so `zoo report` shows them again
    where the plugin is not installed. Without an implementation, nothing is collected for a report.

    Example:
        @zoo.hookimpl
        def zoo_report_sections(event):
            samples = event.results["samples"]["val"]
            sure = sum(best[0] > 0.9 for best in samples["probabilities"])
            print(len(samples["name"]), sure)
            text = zoo.sections.Text(f"{sure} images have a probability above 0.9.")
            return [zoo.sections.Section("Confident predictions", (text,))]
    """


@hookspec
def zoo_after_fit(event: FitEnded, options: Mapping[str, Any]) -> None:
    """Observe that training is over and the run folder written.

    Example:
        @zoo.hookimpl
        def zoo_after_fit(event):
            print(event.metrics["val"]["top1"])
    """


@hookspec
def zoo_on_error(event: FitFailed, options: Mapping[str, Any]) -> None:
    """Observe that training stopped on an error or on Ctrl-C; the error is then raised.

    A training may stop before `zoo_before_fit`, as when its checkpoints are damaged.

    Example:
        @zoo.hookimpl
        def zoo_on_error(event):
            print(event.kind, event.message)
    """
