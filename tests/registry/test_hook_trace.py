"""`ZOO_TRACE_HOOKS=1`: one line for each call of a hook."""

import re

import pytest
import torch

import zoo
from zoo.engine.run.observers import Observers
from zoo.registry.hook_manager import Outcome
from zoo.registry.hook_trace import print_outcome
from zoo.registry.registry import load_registry

CPU = torch.device("cpu")

LINE = r"zoo: hook (\S+): (zoo_\w+)\((.*)\) (->|raised) (.*), (\d+\.\d) ms"

PLUGIN = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        for number in range(7):
            yield zoo.Backbone(
                f"leaf{number}", "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32)
            )

    @zoo.hookimpl
    def zoo_after_epoch(event):
        return "seen"

    @zoo.hookimpl
    def zoo_after_fit(event):
        raise RuntimeError("no\\n\\x1bleaf")
"""


@pytest.fixture
def lines(capfd):
    """Return the parsed trace lines since the last call."""

    def read():
        printed = capfd.readouterr().err.splitlines()
        matches = [re.fullmatch(LINE, line) for line in printed if line.startswith("zoo: hook")]
        assert None not in matches, printed
        return {(match[1], match[2]): match.groups()[2:] for match in matches}

    return read


def test_trace_prints_one_line_per_implementation(install, monkeypatch, lines):
    install("leaf", PLUGIN)
    monkeypatch.setenv("ZOO_TRACE_HOOKS", "1")
    host = load_registry().host
    traced = lines()
    arguments, kind, result, _ = traced["leaf", "zoo_register_backbones"]
    assert (arguments, kind) == ("", "->")
    assert result.startswith("7: Backbone leaf0, Backbone leaf1, ")
    assert result.endswith("and 3 more")
    assert ("timm", "zoo_register_backbones") in traced
    metrics = {"loss": 0.5, "top1": 0.25}
    observers = Observers(host, CPU)
    event = zoo.EpochEnded("head", 1, 5, 0.1, 1 / 3, metrics, True, 2.0)
    observers.notify("zoo_after_epoch", event)
    arguments, kind, result, _ = lines()["leaf", "zoo_after_epoch"]
    assert arguments.startswith(
        "EpochEnded(phase='head', epoch=1, epochs=5, lr=0.1, train_loss=0.3333"
    )
    assert "metrics={'loss': 0.5, 'top1': 0.25}" in arguments
    assert (kind, result) == ("->", "'seen'")
    observers.notify("zoo_after_fit", zoo.FitEnded("a/b", {}, 1.0, "runs/a"))
    _, kind, result, _ = lines()["leaf", "zoo_after_fit"]
    assert kind == "raised"
    assert result == r"RuntimeError: no \x1bleaf"


def test_trace_prints_error_of_collecting_hook(install, monkeypatch, lines):
    install(
        "bad",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield 42
        """,
    )
    monkeypatch.setenv("ZOO_TRACE_HOOKS", "1")
    load_registry()
    _, kind, result, _ = lines()["bad", "zoo_register_backbones"]
    assert (kind, "registered int 42" in result) == ("raised", True)


def test_trace_is_off_by_default(install, monkeypatch, lines):
    install("leaf", PLUGIN)
    for value in (None, "", "0"):
        if value is not None:
            monkeypatch.setenv("ZOO_TRACE_HOOKS", value)
        observers = Observers(load_registry().host, CPU)
        observers.notify("zoo_after_fit", zoo.FitEnded("a/b", {}, 1.0, "runs/a"))
    assert lines() == {}


def test_trace_formats_any_result(lines):
    class Odd:
        def __repr__(self):
            raise ValueError

    for value, shown in (
        (Odd(), "<Odd, which cannot be shown: ValueError>"),
        ((), "nothing"),
        ("x" * 100, f"'{'x' * 56}..."),
        (None, "None"),
    ):
        print_outcome(Outcome("zoo_hook", "leaf", value), {})
        assert lines()["leaf", "zoo_hook"][2] == shown
