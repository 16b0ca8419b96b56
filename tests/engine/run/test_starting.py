"""Trainings that go on from a model file or a run folder."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.modelfile import read_model


@pytest.fixture
def run(tinynet, image_folder, tmp_path, monkeypatch):
    """A run of a layered head with a preprocess of its own, in the folder `first`."""
    monkeypatch.chdir(tmp_path)
    return zoo.finetune(
        tinynet,
        data=image_folder,
        weights="none",
        head="mlp:5,dropout=0.25",
        input_size=24,
        epochs=1,
        batch_size=8,
        train="all",
        out="first",
        device="cpu",
        seed=3,
    )


def test_finetune_goes_on_from_run_folder(run, tinynet, image_folder, tmp_path, cli):
    file = tmp_path / "first" / "model.safetensors"
    options = ("--data", image_folder, "--device", "cpu", "--epochs", "1", "--lr", "1e-12")
    options += ("--train", "head", "--batch-size", "8")
    starts = {
        "name": ("first",),
        "file": (file,),
        "weights": (tinynet, "--weights", "first"),
        "weights-file": (tinynet, "--weights", file),
    }
    first, trained = read_model(file)
    for label, arguments in starts.items():
        code, _, err = cli("finetune", *arguments, *options, "--out", label)
        assert code == 0, err
        card, content = read_model(tmp_path / label / "model.safetensors")
        assert (card.backbone, card.new_head) == (tinynet, first.new_head)
        assert card.preprocess == first.preprocess
        assert card.preprocess.size == (24, 24)
        assert card.base["kind"] == "file"
        assert card.base["sha256"] == trained.sha256
        for name, tensor in trained.tensors.items():
            torch.testing.assert_close(content.tensors[name], tensor, rtol=0, atol=1e-9)
    files = {(tmp_path / label / "model.safetensors").read_bytes() for label in starts}
    assert len(files) == 1


def test_plan_states_head_and_preprocess_of_model(run, tinynet, image_folder, cli):
    code, out, _ = cli("finetune", "first", "--data", image_folder, "--dry-run")
    assert code == 0
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert rows["backbone"].split()[1] == tinynet
    assert rows["head"].split(maxsplit=2)[1:] == ["mlp:5,dropout=0.25", "of the model file"]
    assert "24x24" in rows["preprocess"]
    assert rows["preprocess"].endswith("of the model file")
    given = ("--head", "linear", "--input-size", "32")
    code, out, err = cli("finetune", "first", "--data", image_folder, "--dry-run", *given)
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert (code, rows["head"].split(maxsplit=2)[1:]) == (0, ["linear", "as given"])
    assert "32x32" in rows["preprocess"]
    assert "skipped, shape differs from the heads: head.fc.0.bias" in err


def test_name_of_backbone_comes_before_folder(tmp_path, cli, image_folder, plainnet):
    (tmp_path / "plainnet").mkdir()
    arguments = ("--data", image_folder, "--weights", "none", "--dry-run")
    code, out, _ = cli("finetune", "plainnet", *arguments)
    assert (code, plainnet in out) == (0, True)


def test_weights_beside_a_run_raise(run, image_folder, cli):
    code, _, err = cli("finetune", "first", "--data", image_folder, "--weights", "none")
    assert code == 2
    assert "--weights none does not apply to first/model.safetensors" in err


def test_files_that_cannot_be_gone_on_from_raise(run, tinynet, tmp_path, cli, image_folder):
    (tmp_path / "empty").mkdir()
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(tmp_path / "first" / "model.safetensors"), plain)
    messages = {
        ("empty",): "empty/model.safetensors does not exist",
        (plain,): f"{plain} contains tensors, but was not written by zoo",
        (tinynet, "--weights", "empty"): "empty/model.safetensors does not exist",
        ("resnet18", "--weights", "first"): (
            "first/model.safetensors is a model of tiny/tinynet, not torchvision/resnet18; "
            "`zoo finetune first/model.safetensors` goes on from it"
        ),
    }
    for arguments, message in messages.items():
        code, _, err = cli("finetune", *arguments, "--data", image_folder)
        assert (code, message in err) == (4, True), err
    code, _, err = cli("finetune", "runs/nowhere", "--data", image_folder)
    assert (code, "no backbone is named 'runs/nowhere'" in err) == (2, True)


def test_model_of_missing_plugin_names_it(run, image_folder, cli, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "-tiny,-tensorboard,-regression")
    code, _, err = cli("finetune", "first", "--data", image_folder)
    assert code == 2
    assert "required by first/model.safetensors" in err
    assert "plugin tiny is disabled" in err


def test_python_goes_on_from_a_path(run, image_folder, tmp_path):
    again = zoo.plan(run.path, data=image_folder, device="cpu")
    assert again.backbone == "tiny/tinynet"
    assert str(again.head) == "mlp:5,dropout=0.25"


def test_added_class_computes_only_its_own_features(tinynet, image_folder, tmp_path, own_cache):
    two, three = tmp_path / "two", image_folder
    for split in ("train", "val", "test"):
        for name in ("flag", "mammal"):
            shutil.copytree(image_folder / split / name, two / split / name)
    first = zoo.finetune(tinynet, data=two, weights="none", recipe="probe", out=tmp_path / "a")
    assert first.record["backbone_forwards"] >= 2 * (8 + 4 + 4)
    again = zoo.finetune(first.path, data=three, out=tmp_path / "b")
    assert again.record["backbone_forwards"] == 8 + 4 + 4
    reason = again.record["plan"]["reasons"]["weights"]
    assert "flag, mammal kept, playing_card new" in reason
