"""`zoo import`: checkpoints of other programs become model files."""

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DataParallel

import zoo
from zoo.modelfile import read_model

NAMES = ["mammal", "flag", "playing_card"]


@pytest.fixture
def network(tinynet):
    torch.manual_seed(5)
    return zoo.get(tinynet).build(classes=3)


@pytest.fixture
def plain(network, tmp_path):
    """A safetensors file of a wrapped network, under a suffix of torch's."""
    path = tmp_path / "plain.bin"
    save_file(DataParallel(network).state_dict(), path)
    return path


class Command:
    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checkpoint_becomes_a_model_that_predicts(network, tinynet, tmp_path, image_folder, cli):
    source = tmp_path / "own.pth"
    torch.save({"model": DataParallel(network).state_dict(), "classes": NAMES}, source)
    code, out, err = cli("import", source, "--as", tinynet, "--json")
    assert code == 0, err
    path = tmp_path / "own.safetensors"
    assert json.loads(out) == {
        "path": str(path),
        "sha256": digest(path),
        "source": str(source),
        "source_sha256": digest(source),
        "tensors": len(network.state_dict()),
        "backbone": tinynet,
        "classes": NAMES,
        "notices": [
            "the state dict is taken from 'model'",
            "the prefix 'module.' of its names is taken off",
            "its classes are named in the checkpoint",
            "preprocess the backbone's own",
        ],
    }
    card, content = read_model(path)
    assert card.classes == tuple(NAMES)
    assert card.base["sha256"] == digest(source)
    assert all(torch.equal(content.tensors[n], t) for n, t in network.state_dict().items())
    image = next((image_folder / "val" / "flag").iterdir())
    code, out, _ = cli("predict", path, image, "--json", "--device", "cpu")
    assert code == 0
    probabilities = network.eval()(zoo.transform(network)(image)[None]).softmax(1)[0]
    expected = dict(zip(NAMES, probabilities.tolist(), strict=True))
    answer = {p["class"]: p["probability"] for p in json.loads(out)[0]["predictions"]}
    assert answer == pytest.approx(expected, rel=1e-4)


def test_imported_model_gains_a_class(plain, network, tinynet, tmp_path, image_folder, cli):
    (tmp_path / "names.txt").write_text("bird\nflag\nmammal\n")
    code, _, _ = cli("import", plain, "--as", tinynet, "--classes", tmp_path / "names.txt")
    assert code == 0
    model = tmp_path / "plain.safetensors"
    assert read_model(model)[0].classes == ("bird", "flag", "mammal")
    code, out, _ = cli("finetune", model, "--data", image_folder, "--dry-run")
    assert code == 0
    assert "flag, mammal kept, playing_card new, bird left out" in out


def test_without_backbone_a_state_dict_is_written(plain, network, tinynet, tmp_path, cli):
    code, out, err = cli("import", plain)
    path = tmp_path / "plain.safetensors"
    assert code == 0
    assert f"read  {plain}, {len(load_file(plain))} tensors, sha256 {digest(plain)}\n" in out
    assert f"wrote {path}, sha256 {digest(path)}\n" in out
    assert f"use   zoo finetune NAME --weights {path} --data DATA" in out
    assert f"{plain}: the prefix 'module.' of its names is taken off" in err
    assert all(torch.equal(load_file(path)[n], t) for n, t in network.state_dict().items())
    # The prefix of a module may be a network's own name, so only torch's wrappers are taken off.
    save_file({f"model.{n}": t for n, t in network.state_dict().items()}, plain)
    assert cli("import", plain, "--out", "other.safetensors")[0] == 0
    assert all(name.startswith("model.") for name in load_file(tmp_path / "other.safetensors"))


def test_classes_without_names_are_numbers(plain, tinynet, tmp_path, cli):
    code, _, err = cli("import", plain, "--as", tinynet)
    assert code == 0
    assert "it names no classes, so they are numbers; name them with --classes FILE" in err
    assert read_model(tmp_path / "plain.safetensors")[0].classes == ("0", "1", "2")


def test_weights_without_head_become_a_state_dict(network, tinynet, tmp_path, cli):
    state = {n: t for n, t in network.state_dict().items() if not n.startswith("head.fc.")}
    source = tmp_path / "headless.bin"
    save_file(state, source)
    code, out, err = cli("import", source, "--as", tinynet)
    assert code == 0
    assert "without its head it predicts nothing; train it with --weights" in err
    assert f"use   zoo finetune {tinynet} --weights" in out
    assert load_file(tmp_path / "headless.safetensors").keys() == state.keys()


def test_segmentation_network_is_imported(tmp_path, cli):
    backbone = zoo.get("lraspp_mobilenet_v3_large")
    model = backbone.build(classes=3)
    source = tmp_path / "masks.bin"
    save_file(model.state_dict(), source)
    (tmp_path / "names.txt").write_text("background\nroad\nsky\n")
    code, _, err = cli("import", source, "--as", backbone.id, "--classes", tmp_path / "names.txt")
    assert code == 0, err
    loaded = zoo.load(tmp_path / "masks.safetensors", device="cpu")
    assert (loaded.task, loaded.classes) == (
        "semantic-segmentation",
        ("background", "road", "sky"),
    )


def test_imports_that_cannot_be_done_raise(plain, network, tinynet, tmp_path, cli):
    state, own = network.state_dict(), tmp_path / "own.safetensors"
    zoo.save(network, own, NAMES)
    save_file({**state, "other": torch.ones(1)}, tmp_path / "unknown.bin")
    save_file({**state, "body.0.weight": state["body.0.weight"] / 0}, tmp_path / "odd.bin")
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "twice.txt").write_text("a\na\nb\n")
    (tmp_path / "taken.safetensors").touch()
    as_tiny = ("--as", tinynet)
    cases = {
        (tmp_path / "unknown.bin", *as_tiny): (4, "tinynet: 1 unknown (first other)"),
        (tmp_path / "odd.bin", *as_tiny): (4, "is not finite"),
        (tmp_path / "absent.pth",): (4, "does not exist"),
        (own, "--out", "new.safetensors"): (2, "is a model file of zoo"),
        (plain, "--out", "taken.safetensors"): (2, "taken.safetensors exists"),
        (plain, "--out", "new.pth"): (2, "write new.safetensors"),
        (plain, *as_tiny, "--classes", "two.txt"): (
            2,
            "names 2 classes, but the head has 3 outputs",
        ),
        (plain, *as_tiny, "--classes", "twice.txt"): (2, "names 'a' twice"),
        (plain, "--classes", "two.txt"): (2, "--classes requires the backbone"),
        (plain, "--as", "resnet8"): (2, "did you mean"),
    }
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, (expected, message) in cases.items():
        code, _, err = cli("import", *arguments)
        assert (code, message in err) == (expected, True), (arguments, err)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_pickles_are_refused_with_the_command_that_imports(tinynet, tmp_path, image_folder, cli):
    path, mark = tmp_path / "theirs.pth", tmp_path / "mark"
    torch.save({"state_dict": {"a": torch.ones(1)}, "hook": Command(mark)}, path)
    for arguments in (
        ("finetune", tinynet, "--data", image_folder, "--weights", path),
        ("finetune", path, "--data", image_folder),
        ("predict", path, image_folder),
        ("evaluate", path, "--data", image_folder),
        ("embed", path, "--data", image_folder, "--out", "x.npy"),
    ):
        code, _, err = cli(*arguments)
        assert (code, f"`zoo import {path}`" in err) == (4, True), err
    code, _, err = cli("import", path)
    assert (code, f"{path} needs code to open: it calls posix.system" in err) == (4, True), err
    assert not mark.exists()
