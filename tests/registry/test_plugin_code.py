"""Plugins that hang, and those that catch an interrupt."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest

import zoo
from tests.processes import started
from zoo.errors import Interruption
from zoo.registry.plugin_code import HANGING as HANGING_SECONDS
from zoo.registry.plugin_code import plugin_code
from zoo.registry.registry import load_registry

# A plugin that acts in one place.
HANGING = """
    import os, signal, time
    import zoo

    def hang(place):
        if place == {place!r}:
            {act}

    hang("import")

    @zoo.hookimpl
    def zoo_register_backbones():
        hang("backbones")
        yield zoo.Backbone(
            "slownet", "plugin_slow:build", (zoo.Head("1"),), zoo.Preprocess(size=32)
        )
        hang("a backbone")

    @zoo.hookimpl
    def zoo_register_tasks():
        hang("tasks")
        return []

    def build(weights=None):
        from torch import nn

        hang("build")
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
# As `except BaseException` in a plugin's client of a network does.
CONVERT = f"""try:
                {INTERRUPT}
            except BaseException as error:
                raise RuntimeError("no connection") from error"""
PLACES = {
    "import": "the import",
    "backbones": "zoo_register_backbones",
    "a backbone": "zoo_register_backbones",
    "tasks": "zoo_register_tasks",
    "build": "building slow/slownet",
}
PLANNING = ["finetune", "slow/slownet", "--weights", "none", "--dry-run", "--data"]
SWITCH = "ZOO_PLUGINS=-tensorboard,-regression,-report,-slow"


@pytest.fixture
def at_once(monkeypatch):
    """A plugin counts as hanging from its first moment."""
    monkeypatch.setattr("zoo.registry.plugin_code.HANGING", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("act", [INTERRUPT, CONVERT], ids=["hangs", "converts"])
@pytest.mark.parametrize("place", PLACES)
def test_interrupted_plugin_is_named_with_its_switch(install, cli, place, act, image_folder):
    install("slow", HANGING.format(place=place, act=act))
    planning = [*PLANNING, image_folder]
    code, out, err = cli(*(planning if place == "build" else ["list", "lite0"]))
    assert (code, out) == (130, "")
    line = err.splitlines()[-1]
    start, _, rest = line.partition(" in ")
    assert start.startswith("zoo: interrupted: after ")
    named = f"{PLACES[place]} of plugin 'slow', which {SWITCH} switches off"
    assert rest == f"{named}; nothing half-written is left"
    assert "left out" not in err


def test_switch_of_an_interrupted_plugin_works(install, cli, monkeypatch):
    install("slow", HANGING.format(place="import", act=INTERRUPT))
    variable, _, value = SWITCH.partition("=")
    monkeypatch.setenv(variable, value)
    assert cli("plugins")[0] == 0


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_to_hanging_plugin_is_one_line(install, number, code):
    act = "print('waiting', flush=True); time.sleep(60)"
    install("slow", HANGING.format(place="import", act=act))
    command = [sys.executable, "-m", "zoo", "list", "lite0", "--json"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, **streams) as process:
        assert process.stderr.readline() == "waiting\n"
        time.sleep(HANGING_SECONDS)
        process.send_signal(getattr(signal, number))
        out, err = process.communicate(timeout=30)
    (line,) = err.strip().splitlines()  # after the empty one by which click ends that of ^C
    assert (process.returncode, out) == (code, "")
    failure = json.loads(line)
    assert failure["exit_code"] == code
    assert f"the import of plugin 'slow', which {SWITCH} switches off" in failure["message"]


@pytest.mark.usefixtures("at_once")
def test_interrupt_in_python_has_the_note(install):
    install("slow", HANGING.format(place="backbones", act=INTERRUPT))
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.list_backbones()
    (note,) = interrupted.value.__notes__
    assert note.endswith(f"of plugin 'slow', which {SWITCH} switches off")


def test_interrupt_soon_after_the_start_does_not_name_the_plugin(install):
    install("slow", HANGING.format(place="backbones", act=INTERRUPT))
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.list_backbones()
    assert not getattr(interrupted.value, "__notes__", [])


def test_slow_import_is_reported_while_it_lasts(install, caplog, monkeypatch):
    monkeypatch.setattr("zoo.registry.plugin_code.SLOW", 0.05)
    install("slow", HANGING.format(place="import", act="time.sleep(0.5)"))
    (record,) = [each for each in load_registry().host.records if each.name == "slow"]
    sentence = f"plugin 'slow' has been loading for 0.05 s; {SWITCH} switches it off"
    assert caplog.messages == [sentence]
    assert record.status == "ok"


def test_builder_that_panics_is_broken(install, cli, image_folder):
    act = "raise type('Panic', (BaseException,), {})('no leaf')"
    install("slow", HANGING.format(place="build", act=act))
    code, _, err = cli(*PLANNING, image_folder)
    assert code == 5
    assert "slow/slownet does not build: Panic: no leaf" in err


def test_error_during_an_interrupt_is_none():
    """As an observer that fails in `zoo_on_error`, which is called for an interrupt."""
    try:
        raise Interruption
    except Interruption:
        with pytest.raises(ValueError, match="own"), plugin_code("slow", "zoo_on_error"):
            raise ValueError("own")  # noqa: B904 (the context is the point)


def test_cancelled_task_of_asyncio_is_no_interrupt():
    with pytest.raises(TimeoutError), plugin_code("slow", "zoo_after_fit"):
        asyncio.run(asyncio.wait_for(asyncio.sleep(5), 0.01))
