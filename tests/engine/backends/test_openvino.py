"""OpenVINO computes the same head inputs as torch, also in other processes and under signals."""

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from tests.engine.backends.networks import BATCH, engines, network_of, skip_without
from zoo.cache import conversions_dir, entries, trim
from zoo.data.images import noise
from zoo.engine.backends.agreement import disagreement
from zoo.engine.backends.choice import TORCH, Choice, confirm, engine_of
from zoo.engine.runtime import allocator


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("training", [False, True])
def test_openvino_computes_inputs_of_auxiliary_heads_too(tinynet, precision, training):
    skip_without(precision)
    network = network_of(tinynet, precision)
    eager, converted = engines(network, training=training)
    images = noise(3, network.preprocess, seed=1)
    expected, actual = eager.compute(images), converted.compute(images)
    assert list(actual) == list(expected) == ["head.fc", "aux"][: 1 + training]
    for path, values in expected.items():
        assert actual[path].dtype == values.dtype
        rounding = 1e-5 if precision == "fp32" else 2**-6
        torch.testing.assert_close(actual[path], values, rtol=rounding, atol=rounding)
    assert disagreement(converted, images) is None
    # Normalized floats are the same images.
    floats = zoo.data.transforms.normalize(images, network.preprocess)
    for path, values in converted.compute(floats).items():
        torch.testing.assert_close(values, actual[path], rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_convnext"])
@pytest.mark.slow
def test_openvino_agrees_on_networks_of_timm(name):
    network = network_of(name)
    _, converted = engines(network)
    assert disagreement(converted, noise(BATCH, network.preprocess, seed=1)) is None


@pytest.mark.slow
def test_openvino_agrees_on_segmentation_network():
    network = network_of("torchvision/lraspp_mobilenet_v3_large")
    _, converted = engines(network)
    assert disagreement(converted, noise(2, network.preprocess, seed=1)) is None


def test_stream_yields_items_in_order_with_gaps(tinynet):
    network = network_of(tinynet)
    eager, converted = engines(network)
    batches = [noise(size, network.preprocess, seed=size) for size in (4, 1, 3, 4, 2)]
    items = [*batches[:2], None, *batches[2:]]
    streamed = list(converted.stream(iter(items), lambda each: each))
    assert [item is None for item, _ in streamed] == [inputs is None for _, inputs in streamed]
    for item, inputs in streamed:
        if item is not None:
            torch.testing.assert_close(inputs, eager.compute(item), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wrong_weights_of_conversion_disagree(tinynet, precision):
    skip_without(precision)
    network = network_of(tinynet, precision)
    _, converted = engines(network)
    converted.load()
    with torch.no_grad():
        network.module.body[0].weight[0] *= 2
    assert "differs by" in str(disagreement(converted, noise(4, network.preprocess, seed=1)))


def test_damaged_conversion_is_converted_anew(tinynet):
    network = network_of(tinynet)
    images = noise(2, network.preprocess, seed=1)
    _, converted = engines(network)
    expected = converted.compute(images)
    (folder,) = conversions_dir().iterdir()
    path = folder / "model.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    again = network_of(tinynet)
    torch.testing.assert_close(engines(again)[1].compute(images), expected)
    assert any(path.read_bytes())


def test_conversion_that_cannot_be_written_is_computed_without(tinynet):
    network, given = network_of(tinynet), Choice("openvino", "as given", given=True)
    _, converted = engines(network)
    images = noise(2, network.preprocess, seed=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        converted.load()
        assert entries("conversions") == []
        with pytest.raises(zoo.EnvironmentProblem, match=r"cannot write .*model\.xml"):
            confirm(given, converted, lambda: images)
        found = confirm(replace(given, given=False), converted, lambda: images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.name == TORCH
    assert "cannot write" in found.reason
    assert confirm(given, converted, lambda: images) == given
    assert converted.compute(images)


def test_conversion_depends_on_weights_but_not_precision(tinynet):
    paths = {
        engines(network_of(tinynet, precision, seed))[1].conversion.path
        for precision in ("fp32", "bf16")
        for seed in (0, 1)
    }
    assert len(paths) == 2


ROOT = Path(__file__).parents[3]

NARROW = """
import sys
import torch
import zoo
from tests.engine.backends.networks import BATCH, network_of
from zoo.cli import main
from zoo.data.images import noise
from zoo.engine.backends.choice import Choice, confirm, engine_of
from zoo.engine.backends.openvino_model import computes_in
print(computes_in("fp32"), computes_in("bf16"))
network = network_of("timm/test_resnet", "bf16")
engine = engine_of(network, "openvino", BATCH)
images = noise(BATCH, network.preprocess, seed=1)
found = confirm(Choice("openvino", "auto: enough images"), engine, lambda: images)
print(found.name, found.reason, sep="; ", flush=True)
command = ["finetune", "timm/test_resnet", "--data", sys.argv[1], "--weights", "none"]
sys.exit(main([*command, "--recipe", "probe", "--engine", "openvino", "--precision", "bf16"]))
"""


@pytest.mark.slow  # a process that imports torch and OpenVINO
def test_openvino_on_cpu_without_bfloat16_computes_no_bf16(image_folder):
    # oneDNN, by which OpenVINO computes, knows no bfloat16 up to AVX2.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", NARROW, str(image_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    precisions, chosen = done.stdout.splitlines()
    assert precisions == "True False"
    assert chosen == "torch; auto: openvino does not compute in bf16 on this CPU"
    assert done.returncode == 6, done.stderr
    assert "--engine openvino does not compute in bf16 on this CPU" in done.stderr
    assert "give --precision fp32" in done.stderr


def test_limit_of_cache_removes_conversions(tinynet, tmp_path):
    engines(network_of(tinynet))[1].load()
    (entry,) = entries("conversions")
    assert entry.name == tinynet
    assert trim(entry.size, keep=tmp_path) == []
    assert trim(0, keep=tmp_path) == [entry]
    assert not entry.path.exists()


def test_trial_in_another_process_ends_after_a_time(tinynet, monkeypatch):
    monkeypatch.setattr("zoo.engine.backends.openvino.TRIAL_SECONDS", 0.05)
    engine = engine_of(network_of(tinynet), "openvino", BATCH)
    assert engine.crash() == "OpenVINO needs more than 0.05 s for a batch"


def test_trial_in_another_process_reports_failure(tinynet):
    engine = engine_of(network_of(tinynet), "openvino", BATCH)
    assert engine.crash() is None
    path = engine.conversion.path / "model.xml"
    path.write_text("<net/>")
    assert "OpenVINO fails on it" in str(engine.crash())


SIGNAL = """
import gc, signal, subprocess, sys
import numpy as np
from zoo.engine.backends import openvino_model
library = openvino_model.import_openvino()
from openvino import opset13 as ops
if sys.argv[1] == "several":
    openvino_model.core = library.Core
values = ops.parameter([-1, 3, 8, 8], np.float32)
network = library.Model([ops.relu(values)], [values])
def compile():
    settings = {"mean": [0.0] * 3, "std": [1.0] * 3, "precision": "fp32", "threads": 1}
    return openvino_model.compile_network(network, [1, 3, 8, 8], False, **settings)
first, second = compile(), compile()
for compiled in ("first", "second"):
    del globals()[compiled]
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
subprocess.run(["true"])
"""


@pytest.mark.parametrize(("cores", "code"), [("one", 0), ("several", -signal.SIGSEGV)])
def test_signals_are_handled_after_networks_have_gone(cores, code):
    command = [sys.executable, "-c", SIGNAL, cores]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (code, "" if code else "handled\n"), done.stderr


UNOBSERVED = """
from zoo.engine.backends.openvino_model import import_openvino
import_openvino()
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


def test_openvino_is_imported_without_its_telemetry():
    # In a process of its own: other tests import OpenVINO themselves.
    done = subprocess.run(
        [sys.executable, "-c", UNOBSERVED], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n", done.stderr


def test_openvino_returns_freed_memory_while_it_computes(tinynet):
    network = network_of(tinynet)
    engine = engine_of(network, "openvino", BATCH)
    batches = [noise(BATCH, network.preprocess, seed=each) for each in range(3)]
    with allocator.retain_freed_memory():
        retaining = [allocator._retaining for _ in engine.stream(batches, lambda each: each)]
        assert retaining == [False] * 3
        assert allocator._retaining == (allocator._libc() is not None)
