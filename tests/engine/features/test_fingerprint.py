"""Fingerprint of features: the facts beside tensors, modules and threads of `test_cache`."""

from dataclasses import replace

import pytest
import torch

import zoo
from zoo.engine.features import fingerprint
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.runtime.network import Network
from zoo.models.provenance import provenance_of
from zoo.tasks.classification.task import ImageClassification


@pytest.fixture
def name_of(tinynet):
    """Return a function from changes of the preprocess to the fingerprint of the same network."""
    torch.manual_seed(0)
    module = zoo.get(tinynet).build(classes=3)
    made = provenance_of(module)

    def name(**changes):
        preprocess = replace(made.preprocess, **changes)
        cpu, task = torch.device("cpu"), ImageClassification()
        network = Network(module, made.backbone.heads, preprocess, cpu, "fp32", task)
        return network_fingerprint(network, 32)[0]

    return name


def test_fingerprint_covers_preprocess(name_of):
    changes = ({}, {"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"resize": 40}, {"crop": "squash"})
    changes += ({"interpolation": "bicubic"}, {"size": 24, "resize": 36})
    assert len({name_of(**change) for change in changes}) == len(changes)
    assert name_of() == name_of()


def test_fingerprint_covers_versions(name_of, monkeypatch):
    names = [name_of()]
    installed = fingerprint.library_versions
    decoders = fingerprint.decoder_versions
    for library in ("pillow", "libjpeg"):
        changed = decoders() | {library: "0"}
        monkeypatch.setattr(fingerprint, "decoder_versions", lambda found=changed: found)
        names.append(name_of())
    monkeypatch.setattr(fingerprint, "decoder_versions", decoders)
    for library in ("torch", "torchvision", "timm", "numpy"):
        monkeypatch.setattr(
            fingerprint, "library_versions", lambda *asked, n=library: installed(*asked) | {n: "0"}
        )
        names.append(name_of())
    monkeypatch.setattr(fingerprint, "library_versions", installed)
    monkeypatch.setattr(fingerprint, "__version__", "0")
    names.append(name_of())
    assert len(set(names)) == 8
