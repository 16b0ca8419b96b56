"""Model files with seeded damage: loaded, or refused with the exit code of weights or of a name."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.inference.loading import load_model
from zoo.modelfile import KEY, read_model
from zoo.registry.registry import load_registry

ROOT = Path(__file__).parents[2]
JUNK = [
    *(None, True, 0, -1, 3, 1 << 70, 1.5, "", "x", "\x1b[2J\u202e", "torchvision/none", [], {}),
    *(
        [1],
        ["a"],
        ["a", "a", "a"],
        ["a", "b"],
        {"a": 1},
        {"classes": 5},
        {"classes": [1]},
        "9" * 500,
    ),
]


@pytest.fixture
def model_file(tinynet, tmp_path):
    """A model file of three classes."""
    path = tmp_path / "model.safetensors"
    zoo.save(zoo.get(tinynet).build(classes=3), path, ["bee", "ant", "fly"])
    return path


def changed(card, chance):
    """Return a description with one value replaced or removed, at any depth."""
    keys = []
    inner = card
    while True:
        names = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not names:
            break
        keys.append(chance.choice(names))
        value = inner[keys[-1]]
        if not isinstance(value, (dict, list)) or chance.random() < 0.3:
            break
        inner = value
    if not keys or (inner is not card and not inner):
        return card
    if chance.random() < 0.2:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = chance.choice(JUNK)
    return card


def check_changes(path, seeds) -> dict[int, int]:
    """Load model files with changed descriptions; return the number of each exit code."""
    registry = load_registry()
    tensors = load_file(path)
    text = read_model(path)[0].to_json()
    counts = dict.fromkeys((0, 2, 4), 0)
    other = path.with_name("changed.safetensors")
    for seed in seeds:
        chance = random.Random(seed)
        card = changed(json.loads(text), chance)
        save_file(tensors, other, {KEY: json.dumps(card)})
        try:
            load_model(other, registry)
            counts[0] += 1
        except zoo.ZooError as error:
            counts[int(error.exit_code)] += 1  # no other is expected
    return counts


def test_changed_descriptions_are_refused_or_read(model_file):
    counts = check_changes(model_file, range(400))
    assert counts[4] > 100
    assert counts[0] > 20


@pytest.mark.faults
def test_many_changed_descriptions_are_refused_or_read(model_file):
    counts = check_changes(model_file, range(400, 20_000))
    assert counts[4] > 5_000


def change_tensor(path, name, change) -> None:
    """Rewrite a model file with one tensor changed."""
    card, file = read_model(path)
    tensors = {key: tensor.clone() for key, tensor in file.tensors.items()}
    tensors[name] = change(tensors[name])
    save_file(tensors, path, {KEY: card.to_json()})


CHANGES = {
    "type": ("stem.0.weight", torch.Tensor.int, "int32 instead of float32"),
    "double": ("stem.0.weight", torch.Tensor.double, "float64 instead of float32"),
    "shape": ("stem.0.weight", lambda t: t[:4].clone(), "4, 3, 3, 3] instead of"),
    "rows": ("head.fc.weight", lambda t: t[:2].clone(), "instead of"),
    "infinite": ("stem.0.bias", lambda t: t / 0, "is not finite"),
    "variance": ("stem.1.running_var", lambda t: t - 2, "negative variance"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_tensor_of_model_is_refused(model_file, cli, change):
    name, function, reason = CHANGES[change]
    change_tensor(model_file, name, function)
    code, _, err = cli("predict", model_file, ROOT / "zoo/data/clipart10/val/flag")
    assert (code, reason in err, err.count("\n")) == (4, True, 1), err


def test_half_model_is_loaded_and_conversion_stated(tinynet, tmp_path, caplog):
    model = zoo.get(tinynet).build(classes=3)
    path = zoo.save(model, tmp_path / "half.safetensors", ["bee", "ant", "fly"])
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            change_tensor(path, name, torch.Tensor.half)
    loaded = zoo.load(path).module
    assert torch.equal(loaded.stem[0].weight, model.stem[0].weight.half().float())
    assert "float16 is converted to float32" in caplog.text


def test_rows_other_than_classes_are_refused_for_training(model_file, tinynet):
    for name in ("head.fc.weight", "head.fc.bias"):
        change_tensor(model_file, name, lambda tensor: tensor[:2].clone())
    with pytest.raises(zoo.WeightsError, match=r"names 3 classes, and its head.fc.* has 2 rows"):
        zoo.get(tinynet).build(["ant", "fly", "bee"], weights=model_file)


def test_text_of_file_is_printed_escaped(model_file, cli):
    _, file = read_model(model_file)
    names = {"\x1b[2J\u202e\nnew": torch.ones(1), **file.tensors}
    save_file(names, model_file, file.metadata)
    code, _, err = cli("predict", model_file, ROOT / "zoo/data/clipart10/val/flag")
    assert code == 4
    assert "\\x1b[2J\\u202e" in err
    assert "\x1b" not in err
    assert "\u202e" not in err


LIMITED = """
import resource, sys
from pathlib import Path
import torch, safetensors.torch
from tests.test_tensorfile import check_mutations
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))
print(check_mutations(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3]))))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_mutated_files_are_read_in_bounded_memory(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path), "200000", "200300"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "refused" in done.stdout) == (0, True), done.stderr
