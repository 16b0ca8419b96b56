"""Fine-tuning end to end on real images: run folder, freezing, seeds, failures."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import zoo
from tests.engine.run.fitting import fit_phase
from zoo.engine.plan.resolve import Options
from zoo.modelfile import read_model

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}


def test_run_folder_content(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, epochs=3, **QUICK)
    assert run.path.as_posix() == "runs/tinynet-1"
    assert sorted(p.name for p in run.path.iterdir()) == [
        "checkpoints",
        "history.csv",
        "model.safetensors",
        "run.json",
    ]
    record = json.loads((run.path / "run.json").read_text())
    assert record == run.record
    assert 0 <= record["metrics"]["val"]["top1"] <= 1
    assert record["metrics"]["test"]["images"] == 12
    assert record["plan"]["phases"][0]["epochs"] == 3
    # Three epochs of 24 and 12, and the test split once.
    assert record["backbone_forwards"] == 3 * (24 + 12) + 12
    rows = list(csv.DictReader((run.path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = max(rows, key=lambda row: (float(row["val_top1"]), -float(row["val_loss"])))
    assert float(best["val_loss"]) == record["metrics"]["val"]["loss"]
    assert zoo.finetune(tinynet, data=image_folder, epochs=1, **QUICK).path.name == "tinynet-2"


def test_best_epoch_is_saved_and_evaluates_equally(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, epochs=4, schedule="constant", **QUICK)
    again = run.model(device="cpu").evaluate(image_folder, "val")
    assert again["loss"] == pytest.approx(run.metrics["val"]["loss"], rel=1e-6)
    assert again["confusion"] == run.metrics["val"]["confusion"]
    tested = run.model(device="cpu").evaluate(image_folder)
    assert tested["split"] == "test"
    assert tested["confusion"] == run.metrics["test"]["confusion"]


@pytest.mark.parametrize("recipe", ["head", "all", "head-then-all"])
def test_same_seed_same_bytes_independent_of_workers(tinynet, image_folder, recipe):
    digests = set()
    for workers in (0, 2):
        run = zoo.finetune(
            tinynet, data=image_folder, recipe=recipe, epochs=2, workers=workers, **QUICK
        )
        digests.add(run.record["sha256"])
    assert len(digests) == 1
    other = zoo.finetune(tinynet, data=image_folder, recipe=recipe, epochs=2, seed=1, **QUICK)
    assert other.record["sha256"] not in digests


def test_train_head_leaves_other_tensors_identical(tinynet, image_folder, own_cache):
    run = zoo.finetune(tinynet, data=image_folder, train="head", epochs=2, **QUICK)
    # Each image once, and a batch twice to check that features can be cached.
    assert run.record["backbone_forwards"] == 24 + 12 + 12 + 2 * 12
    _, file = read_model(run.path / "model.safetensors")
    torch.manual_seed(0)
    start = zoo.get(tinynet).build().state_dict()
    heads = {"head.fc.weight", "head.fc.bias", "aux.weight", "aux.bias"}
    for name, tensor in file.tensors.items():
        if name not in heads:
            assert torch.equal(tensor, start[name]), name
    assert file.tensors["aux.weight"].shape == (3, 8)


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_cached_features_equal_plain_loop(tinynet, image_folder, own_cache, precision, close):
    given = {"train": "head", "epochs": 3, "optimizer": "sgd", "precision": precision}
    options = Options(data=image_folder, **given, **QUICK)
    heads = []
    for cached in (True, False):
        result = fit_phase(tinynet, options, cached)
        folder, run = result.path, result.record
        heads.append(read_model(folder / "model.safetensors")[1].tensors)
        # The forward passes of the check count too.
        checked = 2 * 12 if cached else 0
        assert run["backbone_forwards"] == (48 if cached else 3 * (24 + 12) + 12) + checked
    for name in heads[0]:
        assert torch.allclose(heads[0][name], heads[1][name], rtol=close, atol=1e-6), name


def test_layers_after_the_head_prevent_feature_caching(image_folder):
    run = zoo.finetune(
        "squeezenet1_1", data=image_folder, weights="none", train="head", epochs=1, device="cpu"
    )
    (phase,) = run.record["plan"]["phases"]
    assert phase["keep_features"] is False
    reason = run.record["plan"]["reasons"]["phases.0.keep_features"]
    assert "more after its head" in reason


def test_two_phases_history(tinynet, image_folder):
    run = zoo.finetune(tinynet, data=image_folder, recipe="head-then-all", epochs=(4, 1), **QUICK)
    assert [phase["policy"] for phase in run.record["plan"]["phases"]] == ["head", "all"]
    rows = list(csv.DictReader((run.path / "history.csv").open()))
    assert [row["phase"] for row in rows] == ["head"] * 4 + ["all"]
    assert float(rows[-1]["lr"]) < float(rows[0]["lr"])


def test_test_split_does_not_affect_training(tinynet, image_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(image_folder, other)
    for path in (other / "test" / "flag").iterdir():
        path.rename(other / "test" / "mammal" / path.name)
    one = zoo.finetune(tinynet, data=image_folder, epochs=2, **QUICK)
    two = zoo.finetune(tinynet, data=other, epochs=2, **QUICK)
    first = read_model(one.path / "model.safetensors")[1].tensors
    second = read_model(two.path / "model.safetensors")[1].tensors
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.metrics["test"]["confusion"] != two.metrics["test"]["confusion"]


def test_unreadable_image_raises_or_is_skipped(tinynet, image_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(image_folder, broken)
    unreadable = sorted((broken / "train" / "flag").iterdir())[0]
    unreadable.write_bytes(unreadable.read_bytes()[:300])
    with pytest.raises(zoo.DataError, match=unreadable.name):
        zoo.finetune(tinynet, data=broken, epochs=1, **QUICK)
    assert not Path("runs").exists()
    for recipe in ("head", "all"):
        run = zoo.finetune(
            tinynet, data=broken, epochs=1, bad_images="skip", recipe=recipe, **QUICK
        )
        assert list(run.record["bad_images"]) == [str(unreadable)]


def test_divergence_raises_diverged(tinynet, image_folder):
    with pytest.raises(zoo.Diverged, match=r"the training loss became .* lower lr "):
        zoo.finetune(
            tinynet,
            data=image_folder,
            epochs=3,
            **{**QUICK, "lr": 1e18, "optimizer": "sgd", "schedule": "constant"},
        )


def test_unreadable_split_raises_data_error(tinynet, image_folder, tmp_path):
    for split in ("val", "train"):
        broken = tmp_path / split
        shutil.copytree(image_folder, broken)
        for path in (broken / split).rglob("*.jpg"):
            path.write_text("no image")
        for recipe in ("all", "head"):
            with pytest.raises(zoo.DataError, match=f"no image of the {split} split"):
                zoo.finetune(
                    tinynet, data=broken, epochs=1, bad_images="skip", recipe=recipe, **QUICK
                )
    assert not Path("runs").exists()


def test_locked_run_folder_raises_busy(tinynet, image_folder, tmp_path):
    out = tmp_path / "shared"
    out.mkdir()
    with FileLock(out / ".claim"), pytest.raises(zoo.Busy, match="another run"):
        zoo.finetune(tinynet, data=image_folder, epochs=1, out=out, **QUICK)
    run = zoo.finetune(tinynet, data=image_folder, epochs=1, out=tmp_path / "deep" / "er", **QUICK)
    assert not (run.path / ".claim").exists()


def test_failure_removes_only_folders_it_created(tinynet, image_folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (mine, tmp_path / "a" / "b"):
        with pytest.raises(zoo.UsageError, match="loss"):
            zoo.finetune(
                tinynet, data=image_folder, epochs=1, out=out, loss=lambda *_: None, **QUICK
            )
    assert mine.is_dir()
    assert list(mine.iterdir()) == []
    assert not (tmp_path / "a").exists()


def test_file_names_that_are_not_utf8(tinynet, image_folder, tmp_path):
    odd = tmp_path / "odd"
    shutil.copytree(image_folder, odd)
    flags = os.fsencode(odd / "train" / "flag")
    Path(os.fsdecode(flags + b"/\xe9.jpg")).write_bytes(b"no image")
    run = zoo.finetune(tinynet, data=odd, epochs=1, bad_images="skip", **QUICK)
    (name,) = run.record["bad_images"]
    assert name.endswith(".jpg")
    assert json.loads((run.path / "run.json").read_bytes())["bad_images"]
    cafe = Path(os.fsdecode(os.fsencode(odd / "train") + b"/caf\xe9"))
    cafe.mkdir()
    shutil.copyfile(sorted((image_folder / "train" / "flag").iterdir())[0], cafe / "a.jpg")
    with pytest.raises(zoo.DataError, match="not valid UTF-8"):
        zoo.finetune(tinynet, data=odd, epochs=1, **QUICK)


def test_five_dimensional_and_integer_parameters(install, image_folder):
    install(
        "deep",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("deepnet", "plugin_deep:build", (zoo.Head("fc"),),
                               zoo.Preprocess(size=16))

        def build(weights=None):
            import torch
            from torch import nn

            class Deep(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = nn.Conv3d(1, 4, 3)
                    self.fc = nn.Linear(4, 2)
                    self.count = nn.Parameter(torch.tensor([3]), requires_grad=False)

                def forward(self, x):
                    return self.fc(self.conv(x[:, None]).mean((2, 3, 4)))

            return Deep()
        """,
    )
    for recipe in ("all", "head"):
        run = zoo.finetune("deepnet", data=image_folder, epochs=1, recipe=recipe, **QUICK)
        assert run.metrics["val"]["images"] == 12


def test_existing_run_folder_is_not_overwritten(tinynet, image_folder, tmp_path):
    out = tmp_path / "mine"
    run = zoo.finetune(tinynet, data=image_folder, epochs=1, out=out, **QUICK)
    assert run.path == out
    digest = (out / "model.safetensors").read_bytes()
    with pytest.raises(zoo.UsageError, match="not empty"):
        zoo.finetune(tinynet, data=image_folder, epochs=1, out=out, **QUICK)
    assert (out / "model.safetensors").read_bytes() == digest


def test_unavailable_weights_error_lists_alternatives(image_folder):
    with pytest.raises(zoo.WeightsError) as caught:
        zoo.finetune("resnet18", data=image_folder)
    for alternative in ("weights=FILE", "weights='none'", "efficientnet_lite/lite0"):
        assert alternative in str(caught.value)
    with pytest.raises(zoo.WeightsError, match="no weights are published"):
        zoo.finetune(zoo.list_backbones(source="timm", pretrained=False)[0].id, data=image_folder)


def test_training_starts_from_a_model_file(tinynet, image_folder):
    first = zoo.finetune(tinynet, data=image_folder, epochs=1, **QUICK)
    file = str(first.path / "model.safetensors")
    run = zoo.finetune(tinynet, data=image_folder, epochs=1, **{**QUICK, "weights": file})
    assert run.record["plan"]["recipe"] == "head"
    assert run.record["base"]["kind"] == "file"
