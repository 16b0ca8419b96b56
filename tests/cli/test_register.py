"""Registered models: `zoo register`, `zoo list --mine`, and commands that take their names."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import zoo
from zoo.modelfile import read_model, write_model
from zoo.registry.own_models import models_dir


@pytest.fixture
def run(tmp_path, image_folder) -> Path:
    folder = tmp_path / "run"
    zoo.finetune("timm/test_efficientnet", data=image_folder, weights="none", out=folder)
    return folder


def test_registered_model_is_listed_loaded_and_trained_from(run, zoo_process, image_folder):
    done = zoo_process("register", "mine", str(run), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    file = run / "model.safetensors"
    assert printed["path"] == str(file)
    assert printed["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert printed["classes"] == list(zoo.load(run).classes)
    assert [path.name for path in models_dir().iterdir()] == ["mine.json"]
    assert json.loads(zoo_process("list", "--mine", "--json").stdout) == [printed]
    row = zoo_process("list", "--mine", "m*").stdout.splitlines()[1]
    top1, top5 = (zoo.load(run).card.metrics["val"][name] for name in ("top1", "top5"))
    assert f"timm/test_efficientnet        3  val top1 {top1:.4f} top5 {top5:.4f}" in row
    assert zoo_process("list", "--mine", "other").stdout == ""

    image = next(path for path in image_folder.rglob("*") if path.suffix in (".png", ".jpg"))
    assert zoo.load("mine").predict([image]) == zoo.load(run).predict([image])
    plan = zoo.plan("mine", data=image_folder)
    assert plan.weights == zoo.plan(str(run), data=image_folder).weights


def test_changed_or_missing_registered_model_is_refused(run):
    zoo.register_model("mine", run)
    file = run / "model.safetensors"
    original = file.read_bytes()
    tensors = load_file(file)
    save_file(tensors, file)
    with pytest.raises(zoo.WeightsError, match="has changed since it was registered as mine"):
        zoo.load("mine")
    file.write_bytes(original)
    assert zoo.load("mine").classes
    shutil.rmtree(run)
    with pytest.raises(zoo.WeightsError, match="registered as mine, does not exist"):
        zoo.load("mine")
    with pytest.raises(zoo.WeightsError, match="neither a run folder nor a model file"):
        zoo.register_model("other", run)


def test_name_is_taken_only_once_and_never_a_backbone_s(run, tmp_path):
    zoo.register_model("mine", run)
    zoo.register_model("mine", run)  # the same file
    copy = tmp_path / "copy.safetensors"
    save_file({"a": load_file(run / "model.safetensors")["classifier.weight"]}, copy)
    with pytest.raises(zoo.WeightsError, match="not written by zoo"):
        zoo.register_model("mine", copy, replace=True)
    for name in ("resnet18", "", "a/b", "auto", "x.safetensors", "-x"):
        with pytest.raises(zoo.UsageError):
            zoo.register_model(name, run)
    assert [model.name for model in zoo.list_models()] == ["mine"]
    zoo.register_model("second", "mine")
    assert zoo.unregister_model("mine").path == zoo.unregister_model("second").path
    assert zoo.list_models() == []
    assert (run / "model.safetensors").exists()
    with pytest.raises(zoo.UsageError, match="no model is registered as 'mine'"):
        zoo.unregister_model("mine")


def test_register_command_replaces_and_removes(run, zoo_process, tmp_path):
    other = tmp_path / "other.safetensors"
    card, file = read_model(run / "model.safetensors")
    tensors = {name: tensor + 1 for name, tensor in file.tensors.items()}
    write_model(other, tensors, card)
    zoo.register_model("mine", run)
    done = zoo_process("register", "mine", str(other))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--replace" in done.stderr
    assert zoo_process("register", "mine", str(other), "--replace").returncode == 0
    assert [model.path for model in zoo.list_models()] == [str(other)]
    assert zoo_process("register", "mine").returncode == 2
    assert zoo_process("register", "mine", "--remove").stdout.startswith("removed mine")
    assert zoo.list_models() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"name": "mine"}', b'{"name": "mine", "classes": 3}', b"\xff"]
)
def test_damaged_registration_is_named_and_the_others_are_listed(content, cli, caplog):
    models_dir().mkdir(parents=True)
    (models_dir() / "mine.json").write_bytes(content)
    with pytest.raises(zoo.WeightsError, match=r"mine.json is damaged"):
        zoo.load("mine")
    assert zoo.list_models() == []
    assert "mine.json is damaged" in caplog.text


def test_unknown_name_suggests_own_models_and_runs(run, cli):
    zoo.register_model("pets", run)
    for command in (("predict", "petz", "a.jpg"), ("finetune", "petz"), ("export", "petz")):
        code, _, err = cli(*command)
        assert code == 2
        assert "no backbone is named 'petz'; did you mean pets" in err
    code, _, err = cli("predict", run.with_name("rum"), "a.jpg")
    assert code == 2
    assert f"did you mean {run}" in err
    code, _, err = cli("predict", run.parent, "a.jpg")
    assert code == 4
    assert f"{run.parent / 'model.safetensors'} does not exist; did you mean {run}?" in err
    code, _, err = cli("show", "pets")
    assert code == 2
    assert "pets is a model of yours; `zoo list --mine` shows its backbone" in err
