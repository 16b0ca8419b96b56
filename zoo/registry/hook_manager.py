"""A pluggy manager that isolates the errors of hook implementations.

pluggy aborts the call of a hook at the first implementation that raises. Here registering a plugin
replaces each of its implementations by a function that records its result or error and its time.
pluggy calls these functions, so wrappers, `tryfirst`, `trylast` and `add_hookcall_monitoring` have
pluggy's semantics.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType, ModuleType
from typing import Any

import pluggy

from zoo.errors import INTERRUPTS
from zoo.registry.plugin_code import plugin_code


class Outcome:
    """The outcome of one implementation in one call of a hook.

    Args:
        hook: name of the hook.
        plugin: name of the plugin.
        result: its return value; of a wrapper, the result of the call after it.

    Attributes:
        error: raised instead.
        seconds: wall time; of a wrapper, without the wrapped implementations.
    """

    def __init__(self, hook: str, plugin: str, result: Any = None) -> None:
        self.hook = hook
        self.plugin = plugin
        self.result = result
        self.error: BaseException | None = None
        self.seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the time of a block, and record its error; interrupts propagate."""
        start = time.perf_counter()
        try:
            with plugin_code(self.plugin, self.hook):
                yield
        except INTERRUPTS:
            raise
        except BaseException as error:  # SystemExit, and other classes of a plugin's own
            self.error = error
        finally:
            self.seconds += time.perf_counter() - start


class Results:
    """Validation of the results of a hook; accepts anything."""

    def accept(self, plugin: str, result: Any) -> Any:
        """Return the validated result of an implementation.

        Raises:
            Exception: it is invalid; the plugin has failed.
        """
        return result

    def accept_wrapped(self, plugin: str, results: Any) -> Any:
        """Return the validated results of a wrapper, as `accept` does."""
        return results

    def copy(self, results: Any) -> Any:
        """Return a copy of the results that a wrapper may modify."""
        return list(results) if isinstance(results, list) else results


class Options(dict[str, Mapping[str, Any]]):
    """An argument of a hook: the options of each plugin by name.

    Each implementation receives those of its plugin instead.
    """

    def own(self, plugin: str) -> Mapping[str, Any]:
        """Return the options of one plugin."""
        return self.get(plugin, MappingProxyType({}))


class _Call:
    def __init__(self, results: Results) -> None:
        self.results = results
        self.outcomes: list[Outcome] = []

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
        """Register a plugin as pluggy does, with its errors isolated."""
        registered = super().register(plugin, name)
        for caller in self.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    _contain(caller.name, implementation)
        return registered

    def call(
        self, hook: str, results: Results | None = None, **arguments: Any
    ) -> tuple[Any, list[Outcome]]:
        """Call every implementation of a hook, even if some of them raise.

        Output of plugins is redirected to stderr: stdout is for the command's own, such as JSON.

        Args:
            hook: name of the hook.
            results: validates the result of each implementation.
            arguments: of the hook.

        Returns:
            The result of pluggy's call, without failed implementations; and the outcome of each.
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
        """The outcomes so far of the current call."""
        call = _running.get()
        return call.outcomes if call else []


def _contain(hook: str, implementation: pluggy.HookImpl) -> None:
    """Replace an implementation's function by one that records its errors."""
    function, plugin = implementation.function, implementation.plugin_name
    contain = (
        _contained_hookwrapper
        if implementation.hookwrapper
        else _contained_wrapper
        if implementation.wrapper
        else _contained_function
    )
    function = _with_own_options(plugin, function)
    # pluggy declares the attribute final, since it reads the argument names once; `wraps` preserves
    # them.
    object.__setattr__(implementation, "function", contain(hook, plugin, function))


def _with_own_options(plugin: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        own = [each.own(plugin) if isinstance(each, Options) else each for each in args]
        return function(*own, **kwargs)

    return called


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
    """Run a wrapper up to its yield; return None on failure."""
    with outcome.measured():
        wrapper: Generator[None, Any, Any] = function(*args, **kwargs)
        for _ in wrapper:
            return wrapper
        raise RuntimeError("the wrapper did not yield")
    return None


def _tear_down(wrapper: Generator[None, Any, Any], value: Any) -> Any:
    """Send a value to a wrapper at its yield, and return its return value."""
    try:
        wrapper.send(value)
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
            # Only interrupts reach this: the wrapper may clean up, but not swallow it.
            with suppress(BaseException):
                wrapper.throw(error)
            raise
        with outcome.measured():
            after = _tear_down(wrapper, call.results.copy(before))
            outcome.result = call.results.accept_wrapped(plugin, after)
        return before if outcome.error else outcome.result

    return contained


def _contained_hookwrapper(
    hook: str, plugin: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Isolate the errors of an old-style wrapper, which receives a `pluggy.Result`."""

    @wraps(function)
    def contained(*args: Any, **kwargs: Any) -> Generator[None, pluggy.Result[Any], None]:
        call = _running.get()
        if call is None:
            yield from function(*args, **kwargs)
            return
        outcome = call.begin(hook, plugin)
        wrapper = _set_up(outcome, function, args, kwargs)
        result = yield
        if wrapper is None:
            return
        if result.exception is not None:
            interrupt = result.exception
            with suppress(BaseException):
                _tear_down(wrapper, result)
            result.force_exception(interrupt)
            return
        before = result.get_result()
        result.force_result(call.results.copy(before))
        with outcome.measured():
            _tear_down(wrapper, result)
            outcome.result = call.results.accept_wrapped(plugin, result.get_result())
        result.force_result(before if outcome.error else outcome.result)

    return contained
