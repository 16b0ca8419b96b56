"""Engines compute the same head inputs as torch, for trainings, evaluations and predictions."""

import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import zoo
from tests.devices import DEVICES
from zoo.cache import conversions_dir, entries, trim
from zoo.data.images import noise
from zoo.engine.backends import choice
from zoo.engine.backends.agreement import disagreement
from zoo.engine.backends.choice import FEW, TORCH, Choice, choose, confirm, engine_of
from zoo.engine.backends.openvino import OpenVINOEngine
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.runtime import allocator
from zoo.engine.runtime.device import autocast
from zoo.engine.runtime.network import Network
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.registry.registry import load_registry
from zoo.tasks.base import load_task

CPU = torch.device("cpu")
PROBE = {"weights": "none", "device": "cpu", "recipe": "probe"}
BATCH = 4


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)


def network_of(name, precision="fp32", seed=0, device=CPU):
    torch.manual_seed(seed)
    module = zoo.get(name).build(classes=3, weights=None)
    freeze(module)
    made = provenance_of(module)
    task = load_task(load_registry().task(made.backbone.task))
    return Network(module, made.backbone.heads, made.preprocess, device, precision, task)


def engines(network, name="openvino", training=False):
    return [engine_of(network, each, BATCH, training) for each in (TORCH, name)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("training", [False, True])
def test_openvino_computes_inputs_of_auxiliary_heads_too(tinynet, precision, training):
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


def test_wrong_weights_of_conversion_disagree(tinynet):
    network = network_of(tinynet, "bf16")
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


def test_limit_of_cache_removes_conversions(tinynet, tmp_path):
    engines(network_of(tinynet))[1].load()
    (entry,) = entries("conversions")
    assert entry.name == tinynet
    assert trim(entry.size, keep=tmp_path) == []
    assert trim(0, keep=tmp_path) == [entry]
    assert not entry.path.exists()


def test_features_of_engines_have_different_fingerprints(tinynet):
    network = network_of(tinynet)
    names = {network_fingerprint(network, 32, name)[0] for name in (TORCH, "openvino", "compile")}
    assert len(names) == 3
    assert network_fingerprint(network, 32)[0] in names


def test_auto_converts_from_number_of_images_on(tinynet):
    network = network_of(tinynet)
    enough = choice.pays_from(network)

    def chosen(images):
        return choose(network, "auto", lambda n: engine_of(network, n, BATCH), lambda: images)

    assert (chosen(enough).name, chosen(enough - 1).name) == ("openvino", TORCH)
    assert f"{enough:,}" in chosen(1).reason
    engine_of(network, "openvino", BATCH).load()
    assert chosen(0).name == "openvino"


LOOP = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("loopnet", "plugin_loop:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        import torch
        from torch import nn

        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 7)

            def forward(self, x):
                values = torch.from_numpy(x.numpy().copy())  # no tracer follows numpy
                if x[0, 0, 0, 0].item() > 0:
                    values = values * 2
                return self.fc(values.mean((2, 3)))

        return Loop()
"""


def test_network_that_cannot_be_traced_is_refused_by_name(install):
    install("loop", LOOP)
    network = network_of("loop/loopnet")
    engine = engine_of(network, "openvino", BATCH)
    images = noise(BATCH, network.preprocess, seed=1)
    automatic = confirm(choice.Choice("openvino", "auto: enough images"), engine, lambda: images)
    assert automatic.name == TORCH
    with pytest.raises(zoo.BrokenBackbone, match="--engine openvino"):
        confirm(choice.Choice("openvino", "as given", given=True), engine, lambda: images)


@pytest.mark.slow
def test_network_that_crashes_openvino_is_computed_in_torch():
    network = network_of("timm/resnet50_gn")
    engine = engine_of(network, "openvino", BATCH)
    images = noise(BATCH, network.preprocess, seed=1)
    chosen = confirm(choice.Choice("openvino", "auto: enough images"), engine, lambda: images)
    reason = engine.crash()
    assert chosen.name == ("openvino" if reason is None else TORCH)
    assert reason is None or reason in chosen.reason


def test_known_check_of_engine_reads_no_images(tinynet):
    selected = choice.Choice("openvino", "auto: enough images")
    network = network_of(tinynet)
    images = noise(BATCH, network.preprocess, seed=1)
    assert confirm(selected, engine_of(network, "openvino", BATCH), lambda: images) == selected

    def unread():
        raise AssertionError

    again = engine_of(network_of(tinynet), "openvino", BATCH)
    assert confirm(selected, again, unread) == selected
    with pytest.raises(AssertionError):
        confirm(selected, engine_of(network_of(tinynet), "openvino", BATCH + 1), unread)


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


def test_training_on_openvino_is_evaluated_on_it(plainnet, image_folder, monkeypatch, caplog):
    given = zoo.finetune(plainnet, data=image_folder, engine="openvino", **PROBE)
    assert given.record["plan"]["engine"] == "openvino"
    again = zoo.finetune(plainnet, data=image_folder, **PROBE)  # converted before
    assert again.record["plan"]["reasons"]["engine"] == "auto: the network was converted before"
    assert again.record["backbone_forwards"] == 0
    assert again.record["sha256"] == given.record["sha256"]
    model = again.model()
    assert model.card.features["engine"] == "openvino"
    metrics = model.evaluate(image_folder, "val")
    assert list(model.network.engines) == ["openvino 32 False"]
    assert (metrics["engine"], metrics["images"] < FEW) == ("openvino", True)
    assert metrics["loss"] == pytest.approx(given.metrics["val"]["loss"], rel=1e-6)
    images = sorted(image_folder.glob("val/*/*")) * 3  # less would be predicted in torch
    predicted = model.predict(images)
    model.engine = TORCH
    for one, other in zip(predicted, model.predict(images), strict=True):
        probability = other["predictions"][0]["probability"]
        assert one["predictions"][0]["probability"] == pytest.approx(probability, abs=0.01)
    model.engine = "auto"
    assert not caplog.records
    monkeypatch.setattr(OpenVINOEngine, "version", staticmethod(lambda: None))
    model.evaluate(image_folder, "val")
    reason = "features of openvino: OpenVINO is not installed; pip install 'zoo-registry[openvino]'"
    assert reason in caplog.text


def test_few_images_train_in_torch(tinynet, image_folder):
    plan = zoo.plan(tinynet, data=image_folder, **PROBE)
    assert plan.engine == TORCH
    assert "a conversion pays from" in plan.reasons["engine"]


def test_embedding_by_engine_is_cached_apart(tinynet, image_folder, tmp_path):
    run = zoo.finetune(tinynet, data=image_folder, **PROBE)
    out = tmp_path / "features.npy"
    first = zoo.embed(run.path, image_folder, out, engine="openvino")
    assert (first["engine"], first["backbone_forwards"] >= 48) == ("openvino", True)
    assert zoo.embed(run.path, image_folder, out, engine="openvino")["backbone_forwards"] == 0


def test_engine_without_frozen_phase_is_usage_error(tinynet, image_folder):
    with pytest.raises(zoo.UsageError, match="no phase trains on them"):
        zoo.plan(tinynet, data=image_folder, weights="none", train="all", engine="openvino")


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


ABSENT = """
import sys
from importlib import metadata
found = metadata.version
def version(name):
    if name == "openvino":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
sys.modules["openvino"] = None
import zoo
from zoo.cli import main
options = {"data": sys.argv[1], "weights": "none", "recipe": "probe"}
print(zoo.plan("timm/test_resnet", **options).reasons["engine"])
from zoo.diagnosis.computing import examine_computing
print(*[check.summary for check in examine_computing() if check.name == "engines"], flush=True)
command = ["finetune", "timm/test_resnet", "--data", sys.argv[1], "--weights", "none"]
sys.exit(main([*command, "--recipe", "probe", "--engine", "openvino"]))
"""


def test_absent_openvino_is_named_with_its_remedy(image_folder):
    command = [sys.executable, "-c", ABSENT, str(image_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    plan, doctor = done.stdout.splitlines()
    assert plan == "auto: OpenVINO is not installed"
    remedy = "pip install 'zoo-registry[openvino]'"
    assert f"not openvino: OpenVINO is not installed ({remedy})" in doctor
    assert done.returncode == 6
    assert remedy in done.stderr


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


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_network_agrees(tinynet, precision, device):
    network = network_of(tinynet, precision, device=torch.device(device))
    _, compiled = engines(network, "compile")
    images = noise(BATCH, network.preprocess, seed=1)
    try:
        type(compiled).check(network.device)
    except zoo.EnvironmentProblem:
        pytest.skip("no C++ compiler")
    # dynamo runs what it has compiled of another network where the two are alike to it.
    other = network_of(tinynet, precision, seed=1, device=network.device)
    pixels = zoo.data.transforms.normalize(images.to(network.device), network.preprocess)
    with torch.no_grad(), autocast(network.device, precision):
        torch.compile(other.module.eval())(pixels)
    assert disagreement(compiled, images) is None
    assert not any("input" in vars(part) for part in network.module.modules())


def test_compile_without_compiler_is_environment_problem(monkeypatch):
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(zoo.EnvironmentProblem, match="C\\+\\+ compiler"):
        choice.engine_class("compile").check(torch.device("cpu"))
