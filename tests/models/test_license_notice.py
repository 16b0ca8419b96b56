"""Licences of weights: recorded in derived files, with one warning where they have conditions."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.modelfile import KEY, ModelCard, read_model
from zoo.models.weights import fetch
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.testing.fixtures import reset_caches

PLUGIN = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        for name, license in {licenses!r}.items():
            weights = (
                zoo.Weights("first", file="{file}", license=license, num_classes=3,
                            classes=("a", "b", "c")),
                zoo.Weights("second", file="{file}", num_classes=3),
            )
            yield zoo.Backbone(name, "plugin_leafy:build", (zoo.Head("fc"),),
                               zoo.Preprocess(size=16), weights=weights)

    def build(weights=None):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(3, 4, 3)
                self.fc = nn.Linear(4, 3)

            def forward(self, x):
                return self.fc(self.stem(x).mean((2, 3)))

        return Net()
"""
LICENSES = {
    "nc": "cc-by-nc-4.0",
    "shared": "CC-BY-SA-4.0",
    "own_terms": "gemma",
    "free": "MIT",
    "unstated": None,
}
QUICK = {"device": "cpu", "epochs": 1, "batch_size": 4, "train": "head"}


@pytest.fixture
def leafy(install, tmp_path, monkeypatch):
    """Install five backbones whose weights differ in their licence only."""
    tensors = {
        "stem.weight": torch.randn(4, 3, 3, 3),
        "stem.bias": torch.zeros(4),
        "fc.weight": torch.randn(3, 4),
        "fc.bias": torch.zeros(3),
    }
    save_file(tensors, tmp_path / "leafy.safetensors")
    install("leafy", PLUGIN.format(licenses=LICENSES, file=tmp_path / "leafy.safetensors"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def few(tmp_path):
    """Return a folder of two classes with four images each."""
    for name in ("flag", "mammal"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for path in sorted((EMBEDDED / "train" / name).iterdir())[:4]:
            shutil.copyfile(path, tmp_path / "few" / name / path.name)
    return tmp_path / "few"


@pytest.fixture
def warnings(caplog):
    """Return what has been warned of since the last time."""
    caplog.set_level(logging.WARNING, "zoo")

    def since():
        message = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return message

    return since


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nc", "non-commercial", "cc-by-nc-4.0 (non-commercial): not for commercial use"),
        ("shared", "copyleft", "CC-BY-SA-4.0 (copyleft): "),
        ("own_terms", "custom", "gemma (custom): "),
        ("free", "permissive", None),
        ("unstated", "unknown", None),
    ],
)
def test_finetune_warns_once_and_records_license(leafy, few, warnings, name, kind, message):
    run = zoo.finetune(name, data=few, **QUICK)
    got = warnings()
    assert len(got) == (message is not None), got
    if message:
        assert f"weights first of leafy/{name} are licensed {message}" in got[0]
    license = LICENSES[name]
    record = json.loads((run.path / "run.json").read_text())
    assert record["base"]["license"] == record["plan"]["license"] == license
    assert record["plan"]["license_kind"] == kind
    card, _ = read_model(run.path / "model.safetensors")
    assert (card.base["tag"], card.base_license) == ("first", license)


def test_loading_trained_model_warns_once(leafy, few, warnings):
    run = zoo.finetune("nc", data=few, **QUICK)
    warnings()
    image = next((few / "flag").iterdir())
    for _ in range(3):
        zoo.predict(run.path, image, device="cpu")
    zoo.evaluate(run.path, few, device="cpu")
    (message,) = warnings()
    assert message.startswith(
        f"{run.path / 'model.safetensors'} is trained from weights licensed cc-"
    )


def test_loading_pretrained_network_warns_once(leafy, few, warnings):
    image = next((few / "flag").iterdir())
    for name in ("nc", "nc", "free", "unstated"):
        zoo.predict(name, image, device="cpu")
    zoo.features("nc", image, device="cpu")
    zoo.get("nc").build(classes=2, weights="auto")
    assert len(warnings()) == 1
    # Others of the same backbone are others.
    assert zoo.get("nc").build(weights="second") is not None
    assert zoo.get("nc").build() is not None
    assert warnings() == []


def test_license_propagates_through_model_files(leafy, few, warnings, tmp_path):
    first = zoo.finetune("nc", data=few, **QUICK)
    assert len(warnings()) == 1
    file = first.path / "model.safetensors"
    second = zoo.finetune("nc", data=few, weights=str(file), **QUICK)
    assert (second.record["base"]["kind"], second.record["base"]["tag"]) == ("file", None)
    assert second.record["base"]["license"] == second.record["plan"]["license"] == "cc-by-nc-4.0"
    assert warnings() == [
        f"{file} is trained from weights licensed cc-by-nc-4.0 (non-commercial): "
        "not for commercial use"
    ]
    zoo.save(second.model(device="cpu").module, tmp_path / "third.safetensors", ["a", "b"])
    assert read_model(tmp_path / "third.safetensors")[0].base_license == "cc-by-nc-4.0"
    built = zoo.get("nc").build(classes=2, weights=tmp_path / "third.safetensors")
    zoo.save(built, tmp_path / "fourth.safetensors", ["a", "b"])
    assert read_model(tmp_path / "fourth.safetensors")[0].base_license == "cc-by-nc-4.0"


def test_plain_file_has_no_license(leafy, few, warnings, tmp_path):
    plan = zoo.plan("nc", data=few, weights=str(tmp_path / "leafy.safetensors"), **QUICK)
    assert (plan.license, plan.license_kind) == (None, "unknown")
    built = zoo.get("nc").build(classes=3, weights=tmp_path / "leafy.safetensors")
    zoo.save(built, tmp_path / "own.safetensors", ["a", "b", "c"])
    assert read_model(tmp_path / "own.safetensors")[0].base_license is None
    assert warnings() == []


def test_plan_shows_license_without_warning(leafy, few, warnings):
    rows = {name: rest for name, *rest in zoo.plan("nc", data=few).rows()}
    assert rows["license"] == ["cc-by-nc-4.0 (non-commercial)", "of these weights"]
    assert list(rows)[1:4] == ["task", "weights", "license"]
    rows = {name: rest for name, *rest in zoo.plan("unstated", data=few).rows()}
    assert rows["license"] == ["unknown", "none is stated; ask their publisher"]
    plan = zoo.plan("nc", data=few, weights="none")
    assert (plan.license, plan.license_kind) == (None, None)
    rows = {name: rest for name, *rest in plan.rows()}
    assert rows["license"][0] == "none"
    assert zoo.plan("nc", data=few, weights="second").license is None
    assert warnings() == []


def derived(file, *, stated="", source=None):
    """Derive house/leaf from nc with a file of its own, in the user's registry file."""
    home = Path(os.environ["XDG_CONFIG_HOME"]) / "zoo"
    home.mkdir()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = source or f'file = "{file}"'
    (home / "registry.toml").write_text(
        f'schema = 1\n[backbones."house/leaf"]\nextends = "nc"\n{stated}\n'
        f'[[backbones."house/leaf".weights]]\ntag = "v1"\n{source}\n'
        f'sha256 = "{digest}"\nlike = "none"\nnum_classes = 3\n'
    )
    reset_caches()
    return zoo.get("house/leaf")


def test_derived_backbone_does_not_inherit_license(leafy, few, warnings, tmp_path):
    assert derived(tmp_path / "leafy.safetensors").license is None
    run = zoo.finetune("house/leaf", data=few, **QUICK)
    assert (run.record["base"]["tag"], run.record["base"]["license"]) == ("v1", None)
    assert run.record["plan"]["license_kind"] == "unknown"
    assert warnings() == []


def test_derived_backbone_states_license(leafy, few, warnings, tmp_path):
    derived(tmp_path / "leafy.safetensors", stated='license = "GPL-3.0-only"')
    run = zoo.finetune("house/leaf", data=few, **QUICK)
    assert run.record["base"]["license"] == "GPL-3.0-only"
    (message,) = warnings()
    assert "weights v1 of house/leaf are licensed GPL-3.0-only (copyleft)" in message


def test_registered_model_file_has_license_of_base(leafy, few, warnings, tmp_path):
    model = zoo.get("nc").build(weights="auto")
    zoo.save(model, tmp_path / "leaf.safetensors", ["a", "b", "c"])
    assert len(warnings()) == 1
    # Nobody states it, but the file knows.
    assert derived(tmp_path / "leaf.safetensors").license is None
    run = zoo.finetune("house/leaf", data=few, **QUICK)
    assert run.record["base"]["license"] == run.record["plan"]["license"] == "cc-by-nc-4.0"
    (message,) = warnings()
    assert "weights v1 of house/leaf are licensed cc-by-nc-4.0" in message


def test_license_is_cached_with_download(leafy, tmp_path, file_server):
    zoo.save(zoo.get("nc").build(weights="auto"), tmp_path / "leaf.safetensors", ["a", "b", "c"])
    address, _ = file_server((tmp_path / "leaf.safetensors").read_bytes())
    leaf = derived(tmp_path / "leaf.safetensors", source=f'url = "{address}/leaf.safetensors"')
    for _ in range(2):
        file = fetch(leaf, leaf.weights[0])
        assert ModelCard.from_json(file.metadata[KEY]).base_license == "cc-by-nc-4.0"
    assert file_server.asked == ["/leaf.safetensors"]


@pytest.mark.parametrize("junk", [5, ["MIT"], {"a": 1}, None])
def test_invalid_license_in_model_file_is_ignored(leafy, few, warnings, tmp_path, junk):
    file = tmp_path / "own.safetensors"
    zoo.save(zoo.get("nc").build(classes=2, weights="auto"), file, ["flag", "mammal"])
    warnings()
    card = json.loads(read_model(file)[1].metadata[KEY])
    card["base"]["license"] = junk
    save_file(load_file(file), file, {KEY: json.dumps(card)})
    assert zoo.load(file, device="cpu").evaluate(few)["images"] == 8
    run = zoo.finetune("nc", data=few, weights=str(file), **QUICK)
    assert run.record["base"]["license"] is None
    assert warnings() == []
