"""Every hook that a plugin may implement.

A plugin is a module named by an entry point of the group `zoo`; the entry point's name is the
source in a backbone's id. The module is imported by every command that needs the registry, so it
must import nothing heavy: no torch, no timm.

    [project.entry-points.zoo]
    leafnet = "leafnet.plugin"

A training tells the observing hooks what happens, in its own thread. What they return is of no
account, and they cannot change it: events are copies, random generators and torch's modes are put
back after each call, and an observer that raises is a warning.

Hooks are pluggy's, and so are `tryfirst`, `trylast` and wrappers. A wrapper
(`@zoo.hookimpl(wrapper=True)`) runs around every plugin's implementation: whatever one of them
raises is that plugin's failure, so that the wrapper runs to its end, and what the wrapper raises
is its own plugin's. Around a collecting hook it sees one list of records for each plugin, and
returns what is to be registered instead. A record that has a `source`, changed or not, stays that
plugin's; one that has none is the wrapper's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoo.events import EpochEnded, FirstBatchRead, FitEnded, FitFailed, FitStarted
    from zoo.spec import Backbone, Family, Task

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_register_backbones() -> Iterable[Backbone | Family]:
    """Yield the backbones that this plugin brings.

    Called once per process, when the registry is first needed; what it yields is `zoo.Backbone`,
    or `zoo.Family` for many at once. Where anything about them is wrong, the plugin is left out
    whole, with one line of warning.

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
def zoo_register_tasks() -> Iterable[Task]:
    """Yield the tasks that this plugin brings: what a network can be trained to predict.

    Called once per process, when the registry is first needed. A name belongs to one plugin: a
    built-in task keeps its own, and of two other plugins the first in loading order has it. The
    later one is left out whole, as where anything about a task is wrong, with one line of warning.

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
def zoo_before_fit(event: FitStarted) -> None:
    """Observe that training is about to begin: the network is built, and its folder is there.

    What is refused before, such as a folder without pictures, no observer is told of.

    Example:
        @zoo.hookimpl
        def zoo_before_fit(event):
            print(event.backbone, event.plan["seed"])
    """


@hookspec
def zoo_on_first_batch(event: FirstBatchRead) -> None:
    """Observe the first batch that a training reads, once, whatever it then trains on.

    Where the features of frozen layers are kept, it is the first that they are read from.

    Example:
        @zoo.hookimpl
        def zoo_on_first_batch(event):
            print(event.images.shape, [event.classes[label] for label in event.labels])
    """


@hookspec
def zoo_after_epoch(event: EpochEnded) -> None:
    """Observe an epoch that has been trained and validated.

    Example:
        @zoo.hookimpl
        def zoo_after_epoch(event):
            print(event.epoch, event.metrics["top1"])
    """


@hookspec
def zoo_after_fit(event: FitEnded) -> None:
    """Observe that training is over and the run folder is written.

    Example:
        @zoo.hookimpl
        def zoo_after_fit(event):
            print(event.metrics["val"]["top1"])
    """


@hookspec
def zoo_on_error(event: FitFailed) -> None:
    """Observe that training stopped on an error, or on Ctrl-C; the error goes on to whoever called.

    Example:
        @zoo.hookimpl
        def zoo_on_error(event):
            print(event.kind, event.message)
    """
