"""What commands that run networks import and read before their first image."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

COMMANDS = """
import gc, json, sys
from zoo.cli import main

opened, frozen = [], []

def watch(event, given):
    if event == "open":
        opened.append(str(given[0]))
        frozen.append(gc.get_freeze_count())

sys.addaudithook(watch)
record = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["zoo", *arguments]
    opened.clear(), frozen.clear()
    try:
        main()
    except SystemExit as end:
        code = end.code
    weights = [path for path in opened if path.endswith("/model.safetensors")]
    collector = [gc.isenabled(), frozen[-1], gc.get_freeze_count()]
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    record.append({"code": code, "weights": weights, "gc": collector, "modules": modules})
print(json.dumps(record), file=sys.stderr)
"""
# None of them is needed for a network of torchvision that is on this machine.
UNNEEDED = {"timm", "huggingface_hub", "scipy", "pandas", "matplotlib", "onnx", "tensorboard"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Return what a training and a prediction, one after the other, imported and read."""
    folder = tmp_path_factory.mktemp("start_up")
    random = np.random.default_rng(0)
    for number in range(8):
        path = folder / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    train = ["finetune", "torchvision/squeezenet1_1", "--weights", "none", "--data", "data"]
    commands = [[*train, "--out", "run", "--quiet"], ["predict", "run", "data/a/0.png"]]
    run = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    environment = {**os.environ, "ZOO_PLUGINS": "-tensorboard,-regression"}
    done = subprocess.run(
        run, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return json.loads(done.stderr.splitlines()[-1])


def test_torchvision_backbone_imports_no_other_library(records):
    for record in records:
        assert record["code"] == 0
        assert "torchvision" in record["modules"]
        assert not UNNEEDED & set(record["modules"])


def test_predict_reads_model_file_once(records):
    assert len(records[1]["weights"]) == 1


def test_collector_skips_imports_and_is_enabled_again(records):
    enabled, frozen, after = records[0]["gc"]
    assert enabled
    assert frozen > 100_000
    assert after == 0
