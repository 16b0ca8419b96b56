"""`zoo embed` of shards: a file each, whole or not at all, by any number of jobs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import zoo
from tests.inference.shards import labelled, write_shard, write_shards
from tests.networks import train_probe
from zoo.engine.backends.openvino import OpenVINOEngine
from zoo.options.part import Part
from zoo.tasks.classification.data.sources import open_data

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def trained(tinynet, image_folder, tmp_path):
    return train_probe(tinynet, image_folder, tmp_path / "run")


@pytest.fixture
def samples(image_folder):
    return labelled(image_folder)


@pytest.fixture
def shards(tmp_path, samples):
    return write_shards(tmp_path / "shards", samples, 10)


def metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["zoo"])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def embed(cli, model, *arguments):
    return cli("embed", str(model), *arguments, "--device", "cpu", "--json")


def test_features_of_shards_equal_those_of_files(cli, trained, shards, samples, tmp_path):
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "features")
    assert done[0] == 0, done[2]
    summary = json.loads(done[1])
    assert summary["shards"] == {"done": 3, "skipped": 0, "failed": 0}
    assert (summary["images"], summary["width"], summary["backbone_forwards"]) == (24, 16, 24)
    assert summary["labels"] == {".cls": 24}
    flat = tmp_path / "flat"
    for number in range(3):
        shutil.rmtree(flat, ignore_errors=True)
        flat.mkdir()
        part = samples[number * 10 : number * 10 + 10]
        for index, (_, image, _) in enumerate(part):
            (flat / f"{index:02}.jpg").write_bytes(image)
        zoo.embed(trained, flat, tmp_path / "f.safetensors", device="cpu")
        name = f"shard-00{number}"
        found = load_file(tmp_path / f"features/{name}.safetensors")
        assert torch.equal(found["features"], load_file(tmp_path / "f.safetensors")["features"])
        about = metadata(tmp_path / f"features/{name}.safetensors")
        assert about["paths"] == [key for key, _, _ in part]
        assert [about["classes"][n] for n in found["labels"]] == [name for _, _, name in part]
        assert about["settings"] == metadata(tmp_path / "f.safetensors")["settings"]


def test_jobs_of_many_images_use_one_engine(cli, trained, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.engine.backends.choice.MIN_IMAGES", 0)
    monkeypatch.setattr("zoo.engine.backends.choice.IMAGES_PER_MODULE", 1)
    part = ("--data", "shards/*.tar", "--out", "features", "--part", "2/3")
    code, out, _ = embed(cli, trained, *part)
    assert (code, json.loads(out)["engine"]) == (0, "openvino")
    (path,) = (tmp_path / "features").iterdir()
    assert metadata(path)["settings"]["engine"][0] == "openvino"
    # The others follow it, whatever the rule gives for them.
    monkeypatch.setattr("zoo.engine.backends.choice.MIN_IMAGES", 1000)
    rest = ("--data", "shards/*.tar", "--out", "features")
    code, _, error = embed(cli, trained, *rest, "--engine", "torch")
    assert code == 2
    assert "other settings: engine" in error
    assert embed(cli, trained, *rest)[0] == 0
    assert embed(cli, trained, "--data", "shards/*.tar", "--out", "given", "--engine", "openvino")
    assert len(contents(tmp_path / "given")) == 3
    assert contents(tmp_path / "given") == contents(tmp_path / "features")
    embed(cli, trained, "--data", "shards/*.tar", "--out", "few")
    for name in contents(tmp_path / "few"):
        assert "engine" not in metadata(tmp_path / "few" / name)["settings"]
        found, wanted = (load_file(tmp_path / f / name)["features"] for f in ("given", "few"))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_jobs_share_shards_and_skip_done_ones(cli, trained, shards, tmp_path):
    embed(cli, trained, "--data", "shards/*.tar", "--out", "whole")
    for part, count in (("2/2", 1), ("1/2", 2)):
        done = embed(cli, trained, "--data", "shards/*.tar", "--out", "parts", "--part", part)
        assert json.loads(done[1])["shards"] == {"done": count, "skipped": 0, "failed": 0}
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    (tmp_path / "parts/shard-001.safetensors").unlink()
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "parts")
    assert json.loads(done[1])["shards"] == {"done": 1, "skipped": 2, "failed": 0}
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_features_of_other_settings_are_refused(cli, trained, tinynet, image_folder, shards):
    embed(cli, trained, "--data", "shards/*.tar", "--out", "features", "--part", "1/3")
    other = zoo.finetune(
        tinynet,
        data=image_folder,
        weights="none",
        recipe="probe",
        precision="fp32",
        device="cpu",
        crop="squash",
        out="other",
    )
    done = embed(cli, other.path, "--data", "shards/*.tar", "--out", "features")
    assert done[0] == 2
    message = json.loads(done[2].splitlines()[-1])["message"]
    assert "shard-000.safetensors was computed with other settings" in message
    assert "crop None, now squash" in message


def test_changed_shard_is_named_and_damaged_file_of_features_is_refused(cli, trained, shards):
    embed(cli, trained, "--data", "shards/*.tar", "--out", "features")
    stored = Path("features/shard-001.safetensors")
    later = stored.stat().st_mtime + 10
    os.utime(shards[1], (later, later))
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "features")
    assert json.loads(done[1])["shards"] == {"done": 0, "skipped": 3, "failed": 0}
    assert "1 shard newer than the file of features, and skipped: shards/shard-001.tar" in done[2]
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "features", "--part", "7/9")
    assert (done[0], "part 7/9 of 3 shards has none" in done[2]) == (0, True)
    stored.write_bytes(stored.read_bytes()[:1000])
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "features")
    assert done[0] == 4
    assert "remove it, and run the command again" in done[2]


def test_shards_given_otherwise_than_by_a_pattern_are_refused(cli, trained, shards):
    done = embed(cli, trained, "--data", "shards", "--out", "features")
    assert (done[0], "give them as --data 'shards/*.tar'" in done[2]) == (2, True)
    with pytest.raises(zoo.UsageError, match="several shards are given by a pattern"):
        zoo.embed(trained, shards, "features")
    for part in (3, (1, 2), "1/0"):
        with pytest.raises(zoo.UsageError, match="is no part; give I/N"):
            zoo.embed(trained, "shards/*.tar", "features", part=part)
    expanded = [f"shards/{path.name}" for path in shards] * 2
    done = embed(cli, trained, "--data", *expanded, "--out", "features")
    assert done[0] == 2
    listed = "shards/shard-001.tar, shards/shard-002.tar, shards/shard-000.tar and 2 more"
    assert f"unexpected arguments: {listed}" in done[2]
    assert "quote a pattern" in done[2]
    done = embed(cli, trained, "other", "--data", "shards/*.tar", "--out", "features")
    assert "unexpected argument: other" in done[2]
    assert "--help" in done[2]


def test_training_on_shards_is_refused_with_the_commands_for_them(shards):
    folder = shards[0].parent
    pattern = f"{folder}/*.tar"
    for source, data in ((folder, pattern), (pattern, pattern), (shards[0], shards[0])):
        with pytest.raises(zoo.DataError) as caught:
            open_data(source)
        command = f"`zoo embed NAME --data '{data}' --out DIR` computes features of shards"
        assert caught.value.hint.startswith(command)


def test_files_of_an_absent_engine_name_it(cli, trained, shards, monkeypatch):
    pytest.importorskip("openvino")
    given = ("--data", "shards/*.tar", "--out", "features", "--part")
    embed(cli, trained, *given, "1/3", "--engine", "openvino")
    monkeypatch.setattr(OpenVINOEngine, "version", staticmethod(lambda: None))
    done = embed(cli, trained, *given, "2/3")
    assert done[0] == 6
    error = json.loads(done[2].splitlines()[-1])
    path = "features/shard-000.safetensors"
    assert error["message"] == f"openvino computed {path}: OpenVINO is not installed"
    assert error["hint"] == "pip install 'zoo-registry[openvino]'; or give another --out"


def test_damaged_shard_is_named_and_others_go_on(cli, trained, shards, tmp_path):
    shards[1].write_bytes(shards[1].read_bytes()[:5000])
    done = embed(cli, trained, "--data", "shards/*.tar", "--out", "features")
    assert done[0] == 3
    summary = json.loads(done[1])
    assert summary["shards"] == {"done": 2, "skipped": 0, "failed": 1}
    assert list(summary["failed"]) == ["shards/shard-001.tar"]
    assert "1 of 3 shards failed" in json.loads(done[2].splitlines()[-1])["message"]
    assert list(contents(tmp_path / "features")) == [
        "shard-000.safetensors",
        "shard-002.safetensors",
    ]


def test_unreadable_images_fail_or_are_skipped(cli, trained, samples, tmp_path):
    members = {"a.jpg": samples[0][1], "b.jpg": b"no image", "c.jpg": samples[1][1], "c.npy": b""}
    write_shard(tmp_path / "s.tar", members)
    done = embed(cli, trained, "--data", "s.tar", "--out", "features")
    assert done[0] == 3
    assert not list((tmp_path / "features").iterdir())
    done = embed(cli, trained, "--data", "s.tar", "--out", "features", "--bad-images", "skip")
    summary = json.loads(done[1])
    assert list(summary["bad_images"]) == ["s.tar/b"]
    assert (summary["images"], summary["other_members"]) == (2, {".npy": 1})
    assert metadata(tmp_path / "features/s.safetensors")["paths"] == ["a", "c"]
    assert set(load_file(tmp_path / "features/s.safetensors")) == {"features"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--out", "f.safetensors"], "shards are written to a folder"),
        (["--out", "f", "--part", "3/2"], "no part"),
        (["--out", "f", "--part", "two"], "no part"),
        (["--out", "f", "--classes", "3", "--columns", "label=x"], "2 options are wrong"),
    ],
)
def test_options_that_do_not_apply_are_refused(cli, trained, shards, options, expected):
    done = embed(cli, trained, "--data", "shards/*.tar", *options)
    assert done[0] == 2
    assert expected in done[2]


def test_part_of_images_is_refused(cli, trained, image_folder):
    done = embed(
        cli, trained, "--data", str(image_folder), "--out", "f.safetensors", "--part", "1/2"
    )
    assert done[0] == 2
    assert "--part 1/2 does not apply" in done[2]


def test_parts_are_disjoint_and_complete():
    parts = [Part.parse(f"{number}/7").of(range(100)) for number in range(1, 8)]
    assert sorted(each for part in parts for each in part) == list(range(100))
    assert {len(part) for part in parts} == {14, 15}
