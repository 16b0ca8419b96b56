"""Engines are chosen by a fixed rule, and checked on a batch."""

import subprocess
import sys

import pytest

import zoo
from tests.engine.backends.networks import BATCH, PROBE, network_of
from zoo.data.images import noise
from zoo.engine.backends import choice
from zoo.engine.backends.choice import TORCH, choose, confirm, engine_of
from zoo.engine.features.fingerprint import network_fingerprint


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


def test_few_images_train_in_torch(tinynet, image_folder):
    plan = zoo.plan(tinynet, data=image_folder, **PROBE)
    assert plan.engine == TORCH
    assert "a conversion pays from" in plan.reasons["engine"]


def test_engine_without_frozen_phase_is_usage_error(tinynet, image_folder):
    with pytest.raises(zoo.UsageError, match="no phase trains on them"):
        zoo.plan(tinynet, data=image_folder, weights="none", train="all", engine="openvino")
