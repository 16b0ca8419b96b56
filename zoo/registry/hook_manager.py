"""A pluggy manager under which an implementation that raises ends nothing but itself.

pluggy ends the call of a hook at the first implementation that raises. Here each implementation is
replaced, when its plugin is registered, by a function that records what it returned or raised, and
how long it took. pluggy calls these as it calls any other, so wrappers, `tryfirst`, `trylast` and
`add_hookcall_monitoring` mean what pluggy says that they mean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from types import ModuleType
from typing import Any

import pluggy

# SystemExit too: a plugin that exits fails; an interrupt is the user's, and goes on.
CONTAINED = (Exception, SystemExit)


@dataclass
class Outcome:
    """What one implementation did in one call of a hook.

    Args:
        hook: the hook's name.
        plugin: name of the plugin that implements it.
        result: what it returned; of a wrapper, what the call returned after it.
        error: what it raised instead.
        seconds: wall time of its own; of a wrapper, without what it wraps.
    """

    hook: str
    plugin: str
    result: Any = None
    error: BaseException | None = None
    seconds: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add up the time of a block, and contain what it raises, but for interrupts."""
        began = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.error = error
            if not isinstance(error, CONTAINED):
                raise
        finally:
            self.seconds += time.perf_counter() - began


class Results:
    """What the implementations of a hook may return; here, anything."""

    def accept(self, plugin: str, result: Any) -> Any:
        """Return what an implementation returned as the call is to give it.

        Raises:
            Exception: it is nothing that the hook may return; the plugin has failed.
        """
        return result

    def accept_wrapped(self, plugin: str, results: Any) -> Any:
        """Return what a wrapper made of the results, as `accept` does."""
        return results

    def copy(self, results: Any) -> Any:
        """Return results for a wrapper to look at and change."""
        return list(results) if isinstance(results, list) else results


@dataclass
class _Call:
    results: Results
    outcomes: list[Outcome] = field(default_factory=list)

    def begin(self, hook: str, plugin: str) -> Outcome:
        outcome = Outcome(hook, plugin)
        self.outcomes.append(outcome)
        return outcome


_running: ContextVar[_Call | None] = ContextVar("zoo_hook_call", default=None)


class HookManager(pluggy.PluginManager):
    """zoo's plugins and hooks.

    Args:
        specs: the module that specifies the hooks.
    """

    def __init__(self, specs: ModuleType) -> None:
        super().__init__("zoo")
        self.add_hookspecs(specs)

    def register(self, plugin: Any, name: str | None = None) -> str | None:
        """Register a plugin as pluggy does, its implementations contained."""
        registered = super().register(plugin, name)
        for caller in self.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    _contain(caller.name, implementation)
        return registered

    def call(
        self, hook: str, results: Results | None = None, **arguments: Any
    ) -> tuple[Any, list[Outcome]]:
        """Call every implementation of a hook, whatever some of them raise.

        What a plugin prints goes to stderr: stdout belongs to what a command prints as JSON.

        Args:
            hook: its name.
            results: checks what each implementation returns.
            arguments: of the hook.

        Returns:
            What pluggy's call gives, without those that failed; and what each implementation did.
        """
        call = _Call(results or Results())
        token = _running.set(call)
        try:
            with redirect_stdout(sys.stderr):
                return getattr(self.hook, hook)(**arguments), call.outcomes
        finally:
            _running.reset(token)

    @property
    def outcomes(self) -> list[Outcome]:
        """What the implementations did so far in the call that is running."""
        call = _running.get()
        return call.outcomes if call else []


def _contain(hook: str, implementation: pluggy.HookImpl) -> None:
    """Replace an implementation's function by one that contains what it raises."""
    function, plugin = implementation.function, implementation.plugin_name
    contain = (
        _contained_hookwrapper
        if implementation.hookwrapper
        else _contained_wrapper
        if implementation.wrapper
        else _contained_function
    )
    # pluggy marks the attribute as final for type checkers, since it reads the arguments' names
    # from the function once; those stay true.
    object.__setattr__(implementation, "function", contain(hook, plugin, function))


def _contained_function(hook: str, plugin: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def contained(*args: Any, **kwargs: Any) -> Any:
        call = _running.get()
        if call is None:
            return function(*args, **kwargs)
        outcome = call.begin(hook, plugin)
        with outcome.measured():
            outcome.result = call.results.accept(plugin, function(*args, **kwargs))
        return outcome.result

    return contained


def _set_up(
    outcome: Outcome, function: Callable[..., Any], args: Any, kwargs: Any
) -> Generator[None, Any, Any] | None:
    """Run a wrapper up to its yield; return None if it failed."""
    with outcome.measured():
        wrapper: Generator[None, Any, Any] = function(*args, **kwargs)
        for _ in wrapper:
            return wrapper
        raise RuntimeError("the wrapper did not yield")
    return None


def _tear_down(wrapper: Generator[None, Any, Any], sent: Any) -> Any:
    """Run a wrapper from its yield to its end, and return what it returns."""
    try:
        wrapper.send(sent)
    except StopIteration as end:
        return end.value
    wrapper.close()
    raise RuntimeError("the wrapper yielded a second time")


def _contained_wrapper(hook: str, plugin: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def contained(*args: Any, **kwargs: Any) -> Generator[None, Any, Any]:
        call = _running.get()
        if call is None:
            return (yield from function(*args, **kwargs))
        outcome = call.begin(hook, plugin)
        wrapper = _set_up(outcome, function, args, kwargs)
        if wrapper is None:
            return (yield)
        try:
            before = yield
        except BaseException as error:
            # Nothing else gets here than an interrupt: the wrapper may clean up, and no more.
            with suppress(*CONTAINED):
                wrapper.throw(error)
            raise
        with outcome.measured():
            made = _tear_down(wrapper, call.results.copy(before))
            outcome.result = call.results.accept_wrapped(plugin, made)
        return before if outcome.error else outcome.result

    return contained


def _contained_hookwrapper(
    hook: str, plugin: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Contain a wrapper of pluggy's old style, which is sent a `pluggy.Result`."""

    @wraps(function)
    def contained(*args: Any, **kwargs: Any) -> Generator[None, pluggy.Result[Any], None]:
        call = _running.get()
        if call is None:
            yield from function(*args, **kwargs)
            return
        outcome = call.begin(hook, plugin)
        wrapper = _set_up(outcome, function, args, kwargs)
        given = yield
        if wrapper is None:
            return
        if given.exception is not None:
            interrupt = given.exception
            with suppress(*CONTAINED):
                _tear_down(wrapper, given)
            given.force_exception(interrupt)
            return
        before = given.get_result()
        given.force_result(call.results.copy(before))
        with outcome.measured():
            _tear_down(wrapper, given)
            outcome.result = call.results.accept_wrapped(plugin, given.get_result())
        given.force_result(before if outcome.error else outcome.result)

    return contained
