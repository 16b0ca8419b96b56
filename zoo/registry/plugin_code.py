"""Run the code of a plugin: an interrupt that ends it names the plugin, and is no failure of it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zoo.errors import INTERRUPTS
from zoo.registry.discovery import BUILTIN

# Seconds after which a plugin that is still being imported is named.
SLOW = 10.0
# Seconds after which an interrupt is taken to be meant for the plugin whose code it ends.
HANGING = 1.0


class InterruptedIn(str):
    """A note of an interrupt: the plugin whose code it ended."""


def switch_off(plugin: str) -> str:
    """Return the setting of the environment that also switches a plugin off."""
    present = os.environ.get("ZOO_PLUGINS", "").strip(" ,")
    return f"ZOO_PLUGINS={present},-{plugin}" if present else f"ZOO_PLUGINS=-{plugin}"


def interrupt_of(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """Return the interrupt that an error is, or was raised from; None for another error.

    Args:
        error: that a block raised.
        handled: the error that was being handled before the block, the context of every other.
    """
    each: BaseException | None = error
    while each is not None and each is not handled:
        if isinstance(each, INTERRUPTS):
            return each
        each = each.__cause__ or each.__context__
    return None


@contextmanager
def plugin_code(plugin: str, block: str) -> Iterator[None]:
    """Name the plugin in a note of an interrupt that ends a block of its code after `HANGING`.

    Args:
        plugin: whose code the block runs; empty for none. Built-in ones are not named.
        block: its name in the note, such as `zoo_after_epoch`.

    Raises:
        KeyboardInterrupt: or another interrupt, also where the plugin raised an error from it.
    """
    start, handled = time.perf_counter(), sys.exception()
    try:
        yield
    except BaseException as error:
        interrupt = interrupt_of(error, handled)
        if interrupt is None:
            raise
        seconds = time.perf_counter() - start
        if plugin and plugin not in BUILTIN and seconds >= HANGING:
            where = f"after {seconds:.1f} s in {block} of plugin {plugin!r}"
            interrupt.add_note(InterruptedIn(f"{where}, which {switch_off(plugin)} switches off"))
        if interrupt is error:
            raise
        raise interrupt from None


@contextmanager
def importing(plugin: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Import a plugin in a block: as `plugin_code`, and warn of one that takes `SLOW` seconds.

    Args:
        plugin: its name; built-in ones are not reported.
        warn: called with one sentence, in another thread.
    """
    if plugin in BUILTIN:
        yield
        return
    sentence = f"plugin {plugin!r} has been loading for {SLOW:g} s"
    notice = f"{sentence}; {switch_off(plugin)} switches it off"
    timer = threading.Timer(SLOW, warn, [notice])
    timer.daemon = True
    timer.start()
    try:
        with plugin_code(plugin, "the import"):
            yield
    finally:
        timer.cancel()
