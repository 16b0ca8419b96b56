"""Signals while a probe is solved, which is not checkpointed but solved again from the cache."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.conftest import zoo_command
from tests.processes import started

pytestmark = pytest.mark.faults

SECONDS = 240
SOLVER = "zoo/engine/probe/lbfgs.py"
# Times that the solver is seen before the signal.
SEEN = 3

# Features, and images of noise, for which the solver takes seconds.
SIDE, IMAGES, CLASSES = 32, 600, "abcd"

# Writes the stack of the main thread when it is asked to.
FLAT = """
    import faulthandler
    import os
    import signal
    from pathlib import Path

    import zoo

    faulthandler.register(signal.SIGUSR1, open(f"stack-{os.getpid()}", "w"), all_threads=False)
    Path(f"ready-{os.getpid()}").touch()

    @zoo.hookimpl
    def zoo_register_backbones():
        head, size = zoo.Head("1"), zoo.Preprocess(size=SIDE)
        yield zoo.Backbone("flatnet", "plugin_flat:build", (head,), size)

    def build(weights=None):
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2))
""".replace("SIDE", str(SIDE))


@pytest.fixture
def probe(install, own_cache) -> Callable[..., list[str]]:
    """Return a function from options to the command that solves a probe."""
    install("flat", FLAT)
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        path = Path("data", CLASSES[number % len(CLASSES)], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    given = ["flat/flatnet", "--data", "data", "--weights", "none", "--device", "cpu"]
    return lambda *options: zoo_command("finetune", *given, "--recipe", "probe", *options)


def wait_for_solver(process: subprocess.Popen) -> None:
    """Wait until the solver is in the stack of the main thread."""
    stack, read, seen = Path(f"stack-{process.pid}"), 0, 0
    deadline = time.monotonic() + SECONDS
    while not Path(f"ready-{process.pid}").exists():  # until then the signal ends it
        assert process.poll() is None
        time.sleep(0.01)
    while seen < SEEN:
        assert process.poll() is None, "the probe was solved before it was interrupted"
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.005)
        written = stack.read_text()
        seen += SOLVER in written[read:]
        read = len(written)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL],
)
def test_signal_while_probe_is_solved_is_resumed(number, probe):
    silent = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with started(probe("--out", "run"), **silent) as process:
        wait_for_solver(process)
        process.send_signal(number)
        errors = process.stderr.read()
        code = process.wait(SECONDS)
    assert not Path("run/model.safetensors").exists()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL, errors
    else:
        assert code == 128 + number, errors
        assert "resume it with `zoo finetune --resume " in errors.splitlines()[-1]
    again = zoo_command("finetune", "--resume", "run", "--json")
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Its features were cached.
    assert json.loads(done.stdout)["backbone_forwards"] == 0
    assert not [*Path("run").rglob(".zoo-*")]
    subprocess.run(probe("--out", "whole"), check=True, capture_output=True)
    models = [Path(name, "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]
