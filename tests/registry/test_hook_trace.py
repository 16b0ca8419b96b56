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

TOLD = """
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
    """Return what was traced since the last call, taken apart."""

    def read():
        said = capfd.readouterr().err.splitlines()
        found = [re.fullmatch(LINE, line) for line in said if line.startswith("zoo: hook")]
        assert None not in found, said
        return {(match[1], match[2]): match.groups()[2:] for match in found}

    return read


def test_every_call_is_a_line(install, monkeypatch, lines):
    install("leaf", TOLD)
    monkeypatch.setenv("ZOO_TRACE_HOOKS", "1")
    host = load_registry().host
    said = lines()
    given, way, what, _ = said["leaf", "zoo_register_backbones"]
    assert (given, way) == ("", "->")
    assert what.startswith("7: Backbone leaf0, Backbone leaf1, ")
    assert what.endswith("and 3 more")
    assert ("timm", "zoo_register_backbones") in said
    metrics = {"loss": 0.5, "top1": 0.25}
    observers = Observers(host, CPU)
    event = zoo.EpochEnded("head", 1, 5, 0.1, 1 / 3, metrics, True, 2.0)
    observers.notify("zoo_after_epoch", event)
    given, way, what, _ = lines()["leaf", "zoo_after_epoch"]
    assert given.startswith("EpochEnded(phase='head', epoch=1, epochs=5, lr=0.1, train_loss=0.3333")
    assert "metrics={'loss': 0.5, 'top1': 0.25}" in given
    assert (way, what) == ("->", "'seen'")
    observers.notify("zoo_after_fit", zoo.FitEnded("a/b", {}, 1.0, "runs/a"))
    _, way, what, _ = lines()["leaf", "zoo_after_fit"]
    assert way == "raised"
    assert what == r"RuntimeError: no \x1bleaf"


def test_a_hook_that_fails_while_it_yields_is_told(install, monkeypatch, lines):
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
    _, way, what, _ = lines()["bad", "zoo_register_backbones"]
    assert (way, "registered int 42" in what) == ("raised", True)


def test_it_says_nothing_unasked(install, monkeypatch, lines):
    install("leaf", TOLD)
    for value in (None, "", "0"):
        if value is not None:
            monkeypatch.setenv("ZOO_TRACE_HOOKS", value)
        observers = Observers(load_registry().host, CPU)
        observers.notify("zoo_after_fit", zoo.FitEnded("a/b", {}, 1.0, "runs/a"))
    assert lines() == {}


def test_whatever_comes_back_can_be_shown(lines):
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
