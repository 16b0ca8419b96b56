"""The program for a machine with a GPU, tried on the CPU with tiny sizes."""

import json
import os

import pytest

from tests.processes import started

pytestmark = pytest.mark.slow


def test_program_for_a_gpu_runs_on_the_cpu(tmp_path):
    command = ["benchmarks/gpu.sh", "--device", "cpu", "--small"]
    for section in ("tests", "memory", "reading", "passes"):
        command += ["--section", section]
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "WHEELS": str(tmp_path)}
    with started(command, env=environment) as process:
        assert process.wait(timeout=300) == 0
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert results["tests"]["code"] == 0
    passed = results["passes"]["timm/test_resnet"]
    assert min(passed["ratio"], passed["decoding"]) > 0
    assert list(passed["forward"]) == ["eager", "channels_last", "compiled"]
    rates = (results["reading"], passed["computing"], passed["pass"], passed["forward"])
    assert min(rate for each in rates for rate in each.values()) > 0
    adjusted = {each["name"]: each["value"] for each in results["memory"]["adjustments"]}
    assert adjusted["micro_batch_size"] == 8
