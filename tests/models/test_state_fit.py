"""State dicts of a user: prefixes of wrappers, misfits by kind, values that are not finite."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DataParallel

import zoo
from zoo.modelfile import read_model, write_model
from zoo.models.provenance import provenance_of
from zoo.models.state_fit import compare_state, without_prefix


class Module(nn.Module):
    """A module that contains a network, as Lightning's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def compiled_parts(model: nn.Module) -> nn.Module:
    model.body = torch.compile(model.body, backend="eager")
    return model


WRAPPED = {
    "module.": DataParallel,
    "model.": Module,
    "_orig_mod.": lambda model: torch.compile(model, backend="eager"),
    "module.model.": lambda model: DataParallel(Module(model)),
    "model._orig_mod.": lambda model: Module(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("prefix", WRAPPED)
def test_prefix_of_wrapper_is_taken_off(tinynet, tmp_path, prefix):
    own = zoo.get(tinynet).build(classes=3)
    expected = own.state_dict()
    path = tmp_path / "own.safetensors"
    save_file(WRAPPED[prefix](own).state_dict(), path)
    loaded = zoo.get(tinynet).build(3, path)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    base = provenance_of(loaded).base
    assert sorted(base.prefix.split(".")) == sorted(prefix.split("."))
    assert f"the prefix {base.prefix!r} of its names is taken off" in base.details


def test_compiled_part_of_network_is_read(tinynet, tmp_path):
    own = zoo.get(tinynet).build(classes=3)
    expected = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    path = tmp_path / "own.safetensors"
    state = compiled_parts(own).state_dict()
    assert "body._orig_mod.0.weight" in state
    save_file(state, path)
    loaded = zoo.get(tinynet).build(3, path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_prefix_of_registered_weights_is_taken_off(tinynet, tmp_path):
    backbone = zoo.get(tinynet)
    trained = backbone.build(classes=3)
    path = tmp_path / "published.safetensors"
    save_file(DataParallel(trained).state_dict(), path)
    weights = zoo.Weights("three", file=str(path), num_classes=3)
    loaded = replace(backbone, weights=(weights,)).build(weights="three").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trained.state_dict().items())


def test_prefix_is_left_where_names_already_fit():
    tensors = {"a.w": torch.zeros(1), "b.w": torch.zeros(1), "c.a.w": torch.zeros(1)}
    assert without_prefix(tensors, ["a.w", "b.w"]) == (tensors, "")
    # One name with and without the prefix.
    doubled = {"m.a": torch.zeros(1), "m.b": torch.zeros(1), "a": torch.zeros(1)}
    assert without_prefix(doubled, ["a", "b"]) == (doubled, "")


def test_missing_batch_counter_is_no_misfit(tinynet, tmp_path):
    own = zoo.get(tinynet).build(classes=3)
    state = own.state_dict()
    kept = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert len(kept) == len(state) - 2
    path = tmp_path / "own.safetensors"
    save_file(kept, path)
    loaded = zoo.get(tinynet).build(3, path)
    assert provenance_of(loaded).base.new_heads == ()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in kept.items())


def test_misfits_are_counted_by_kind(tinynet, tmp_path):
    state = zoo.get(tinynet).build(classes=3).state_dict()
    del state["body.0.bias"], state["body.1.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["stem.0.weight"] = torch.zeros(8, 1, 3, 3)
    state["stem.0.bias"] = torch.zeros(8, dtype=torch.int32)
    path = tmp_path / "own.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, path)
    message = (
        f"{path} does not fit tiny/tinynet: 2 missing (first body.0.bias), "
        "1 unknown (first extra.weight), 2 of another shape or type "
        "(first stem.0.weight: [8, 1, 3, 3] instead of [8, 3, 3, 3])"
    )
    with pytest.raises(zoo.WeightsError, match=re.escape(message)):
        zoo.get(tinynet).build(3, path)


def test_entry_outside_of_wrapper_is_unknown(tinynet, tmp_path):
    state = {f"model.{n}": t for n, t in zoo.get(tinynet).build(classes=3).state_dict().items()}
    path = tmp_path / "own.safetensors"
    save_file(state | {"criterion.weight": torch.ones(3)}, path)
    with pytest.raises(zoo.WeightsError, match=r"tinynet: 1 unknown \(first criterion.weight\);"):
        zoo.get(tinynet).build(3, path)


def test_compare_state_of_equal_states_is_empty():
    state = nn.Linear(2, 2).state_dict()
    assert not compare_state(state, state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_raise(tinynet, tmp_path, value, cli, image_folder):
    model = zoo.get(tinynet).build(classes=3)
    with torch.no_grad():
        model.body[0].weight[0, :2, 0, 0] = value
    plain, own = tmp_path / "plain.safetensors", tmp_path / "own.safetensors"
    save_file(model.state_dict(), plain)
    zoo.save(model, own, ["flag", "mammal", "playing_card"])
    for path in (plain, own):
        message = f"{path} is not finite: 2 of 1,152 values of body.0.weight"
        code, _, err = cli("finetune", tinynet, "--data", image_folder, "--weights", path)
        assert (code, message in err, "--lr" in err) == (4, True, False)
    code, _, err = cli("predict", own, image_folder / "val" / "flag")
    assert (code, message in err) == (4, True)


def test_registered_weights_that_are_not_finite_name_their_file(tinynet, tmp_path):
    backbone = zoo.get(tinynet)
    state = backbone.build(classes=3).state_dict()
    state["stem.1.running_var"][2] = float("nan")
    path = tmp_path / "published.safetensors"
    save_file(state, path)
    three = replace(backbone, weights=(zoo.Weights("three", file=str(path), num_classes=3),))
    message = f"{path}, of weights 'three' of tiny/tinynet, is not finite: 1 of 8 values of "
    with pytest.raises(zoo.WeightsError, match=re.escape(f"{message}stem.1.running_var")):
        three.build(weights="three")


def test_model_file_that_does_not_fit_tells_kinds(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=2)
    path = zoo.save(model, tmp_path / "own.safetensors", ["a", "b"])
    card, content = read_model(path)
    del content.tensors["stem.0.bias"]
    content.tensors["more"] = torch.ones(1)
    write_model(path, content.tensors, card)
    message = "tiny/tinynet: 1 missing (first stem.0.bias), 1 unknown (first more)"
    with pytest.raises(zoo.WeightsError, match=re.escape(message)):
        zoo.load(path)


def test_infinities_of_the_network_itself_load(tmp_path, install):
    install(
        "masked",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            small = zoo.Preprocess(size=8)
            yield zoo.Backbone("masked", "plugin_masked:build", (zoo.Head("fc"),), small)

        def build(weights=None):
            import torch
            from torch import nn

            model = nn.Sequential()
            model.fc = nn.Linear(3, 2)
            model.register_buffer("mask", torch.full((2, 2), float("-inf")))
            return model
        """,
    )
    path = tmp_path / "own.safetensors"
    state = zoo.get("masked").build(classes=2).state_dict()
    save_file(state, path)
    assert torch.equal(zoo.get("masked").build(2, path).fc.weight, state["fc.weight"])


def saved(tmp_path, model, **changes):
    """Save a network's state dict with changed entries, and return the path."""
    path = tmp_path / "own.safetensors"
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file({**state, **changes}, path)
    return path


def test_converted_types_are_stated_in_details(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    half = model.stem[0].weight.detach().half()
    own = saved(tmp_path, model, **{"stem.0.weight": half})
    loaded = zoo.get(tinynet).build(3, own)
    assert torch.equal(loaded.stem[0].weight, half.float())
    assert "float16 is converted to float32" in provenance_of(loaded).base.details
    plain = zoo.get(tinynet).build(3, saved(tmp_path, model))
    assert provenance_of(plain).base.casts == ""


def test_integers_are_never_converted(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    for counter in (torch.tensor(2.5), torch.tensor(2, dtype=torch.int32)):
        own = saved(tmp_path, model, **{"stem.1.num_batches_tracked": counter})
        with pytest.raises(zoo.WeightsError, match=r"num_batches_tracked: .* instead of int64"):
            zoo.get(tinynet).build(3, own)


def test_negative_variance_is_refused(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    own = saved(tmp_path, model, **{"body.1.running_var": torch.full((16,), -0.5)})
    with pytest.raises(zoo.WeightsError, match=r"negative variance: -0.5 in body.1.running_var"):
        zoo.get(tinynet).build(3, own)


def test_eight_bit_numbers_are_checked(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=3)
    weight = model.stem[0].weight.detach()
    own = saved(tmp_path, model, **{"stem.0.weight": weight.to(torch.float8_e5m2)})
    assert "float8_e5m2" in provenance_of(zoo.get(tinynet).build(3, own)).base.casts
    own = saved(tmp_path, model, **{"stem.0.weight": (weight / 0).to(torch.float8_e5m2)})
    with pytest.raises(zoo.WeightsError, match="not finite: 216 of 216 values"):
        zoo.get(tinynet).build(3, own)
