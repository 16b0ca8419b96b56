"""Rows of trained heads go to the classes of other data by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.engine.run.prepare import Prepared, prepare, read_options
from zoo.models.head_rows import HeadRows, match_rows
from zoo.registry.registry import load_registry
from zoo.terminal import Progress

# The classes of `image_folder` are flag, mammal, playing_card.
TRAINED = ("playing_card", "bird", "flag")
ROWS = {"flag": 2, "playing_card": 0}
HEADS = ("head.fc.weight", "head.fc.bias", "aux.weight", "aux.bias")


def prepared(name: str, data: Path, weights: Path, **options) -> Prepared:
    given = {"data": data, "weights": str(weights), "device": "cpu", **options}
    return prepare(name, read_options(**given), load_registry(), Progress(quiet=True))


def starting_state(*arguments, **options) -> dict[str, torch.Tensor]:
    network = prepared(*arguments, **options).network
    assert network is not None
    return network.module.state_dict()


@pytest.fixture
def own(tinynet, tmp_path) -> Path:
    torch.manual_seed(1)
    model = zoo.get(tinynet).build(classes=len(TRAINED))
    return zoo.save(model, tmp_path / "own.safetensors", TRAINED)


def test_rows_of_every_head_follow_their_classes(tinynet, own, image_folder):
    trained = load_file(own)
    state = starting_state(tinynet, image_folder, own, train="head", seed=4)
    fresh = starting_state(tinynet, image_folder, "none", train="head", seed=4)
    for name in HEADS:
        assert torch.equal(state[name][0], trained[name][ROWS["flag"]])
        assert torch.equal(state[name][2], trained[name][ROWS["playing_card"]])
        # The row of the new class is the seed's, whatever the file.
        assert torch.equal(state[name][1], fresh[name][1])
    others = trained.keys() - set(HEADS)
    assert all(torch.equal(state[name], trained[name]) for name in others)


def test_head_of_another_width_is_left_out():
    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 3), "aux": torch.nn.Linear(6, 3)})
    tensors = {
        "fc.weight": torch.randn(2, 4),
        "fc.bias": torch.randn(2),
        "aux.weight": torch.randn(2, 5),
    }
    kept, rows = match_rows(model, ["fc", "aux"], tensors, ["b", "a"], ["a", "b", "c"])
    assert kept.keys() == {"fc.weight", "fc.bias"}
    assert torch.equal(kept["fc.weight"][:2], tensors["fc.weight"].flip(0))
    assert torch.equal(kept["fc.bias"][2], model["fc"].bias[2])
    assert rows == HeadRows(("a", "b"), ("c",), ())


def test_known_classes_are_predicted_from_first_step(tinynet, own, image_folder, tmp_path):
    """Two classes of a model in another order: the same answers as the model."""
    for name in ("flag", "playing_card"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for path in (image_folder / "train" / name).iterdir():
            (tmp_path / "two" / name / path.name).write_bytes(path.read_bytes())
    network = prepared(tinynet, tmp_path / "two", own, train="head", precision="fp32").network
    assert network is not None
    model = zoo.load(own, device="cpu").module
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)[:, [ROWS["flag"], ROWS["playing_card"]]]
        torch.testing.assert_close(network.module.eval()(images), expected)


def test_same_classes_start_from_the_model_itself(tinynet, image_folder, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    own = zoo.save(model, tmp_path / "own.safetensors", ["flag", "mammal", "playing_card"])
    state = starting_state(tinynet, image_folder, own, train="all")
    assert all(torch.equal(state[name], tensor) for name, tensor in load_file(own).items())


def test_rows_are_stated_in_plan_and_notices(tinynet, own, image_folder, cli):
    arguments = ("finetune", tinynet, "--data", image_folder, "--weights", own, "--dry-run")
    rows = "rows of the head by name: flag, playing_card kept, mammal new, bird left out"
    code, out, err = cli(*arguments, "--train", "head")
    assert code == 0
    assert f"{own}: {rows}\n" in err
    assert f"as given; {rows}\n" in out
    assert "optimum" not in err
    code, out, err = cli(*arguments)
    solved = "the probe solves for every row of the head; its optimum does not depend on these"
    assert f"as given; {rows}; {solved}\n" in out
    assert f"{own}: {solved}\n" in err


def test_probe_from_trained_head_has_the_same_optimum(tinynet, own, image_folder, tmp_path):
    plain = tmp_path / "headless.safetensors"
    save_file({n: t for n, t in load_file(own).items() if n not in HEADS}, plain)
    heads = []
    for weights in (own, plain):
        out = tmp_path / f"run-{weights.stem}"
        options = {"data": image_folder, "weights": str(weights), "out": out}
        run = zoo.finetune(tinynet, recipe="probe", **options)
        heads.append(load_file(run.path / "model.safetensors")["head.fc.weight"])
    assert torch.equal(*heads)


def test_no_common_class_starts_a_new_head(tinynet, image_folder, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    own = zoo.save(model, tmp_path / "own.safetensors", ["a", "b", "c"])
    state = starting_state(tinynet, image_folder, own, train="head", seed=4)
    fresh = starting_state(tinynet, image_folder, "none", train="head", seed=4)
    assert all(torch.equal(state[name], fresh[name]) for name in HEADS)
    assert torch.equal(state["body.0.weight"], model.body[0].weight)


def test_rows_of_layered_head_keep_hidden_layers(tinynet, image_folder, tmp_path):
    model = zoo.get(tinynet).build(classes=3, head="mlp:5")
    own = zoo.save(model, tmp_path / "own.safetensors", TRAINED)
    trained = load_file(own)
    state = starting_state(tinynet, image_folder, own, train="head", head="mlp:5")
    assert torch.equal(state["head.fc.0.weight"], trained["head.fc.0.weight"])
    assert torch.equal(state["head.fc.2.weight"][0], trained["head.fc.2.weight"][2])
    assert torch.equal(state["aux.weight"][2], trained["aux.weight"][0])


def test_accents_in_another_form_are_one_class(tinynet, tmp_path, image_folder):
    data = tmp_path / "data"
    for name in ("Pa\u0301jaro", "oak"):
        (data / name).mkdir(parents=True)
        for path in (image_folder / "train" / "flag").iterdir():
            (data / name / path.name).write_bytes(path.read_bytes() + name.encode())
    model = zoo.get(tinynet).build(classes=2)
    own = zoo.save(model, tmp_path / "own.safetensors", ["elm", "P\u00e1jaro"])
    base = prepared(tinynet, data, own, train="head").base
    assert (len(base.rows.kept), base.rows.new, base.rows.left_out) == (1, ("oak",), ("elm",))


def test_plain_state_dict_of_equal_width_is_stated(tinynet, own, image_folder, tmp_path):
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(own), plain)
    base = prepared(tinynet, image_folder, plain, train="head").base
    assert base.details == ["its outputs have no names; the head is taken in their order"]
    other = tmp_path / "headless.safetensors"
    save_file({n: t for n, t in load_file(own).items() if n not in HEADS}, other)
    base = prepared(tinynet, image_folder, other, train="head").base
    assert base.details == ["it has no head head.fc, aux, which is new"]


def test_build_with_names_matches_rows(tinynet, own):
    trained = load_file(own)
    backbone = zoo.get(tinynet)
    state = backbone.build(["flag", "new"], own).state_dict()
    assert all(torch.equal(state[name][0], trained[name][ROWS["flag"]]) for name in HEADS)
    # A number says nothing about the classes: the whole head where it fits, else a new one.
    assert torch.equal(backbone.build(3, own).head.fc.weight, trained["head.fc.weight"])
    assert len(backbone.build(2, own).head.fc.weight) == 2


def test_long_lists_of_rows_are_shortened():
    names = tuple(f"c{number}" for number in range(13))
    text = "rows of the head by name: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 3 more kept"
    assert str(HeadRows(names, (), ())) == text
