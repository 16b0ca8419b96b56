"""`registry.toml`: layers, and errors with file, line and key."""

import os
import random
import re

import pytest

import zoo
from zoo.options.table import DEFAULTS
from zoo.registry import config
from zoo.testing.fixtures import reset_caches


def user_file(text):
    path = config.config_dir() / "registry.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    reset_caches()
    return path


def test_shipped_file_sets_every_default():
    loaded = config.load_config()
    assert set(loaded.defaults) == set(DEFAULTS)
    assert loaded.aliases


def test_invalid_shipped_defaults_are_refused_when_read(tmp_path, monkeypatch):
    shipped = tmp_path / "registry.toml"
    shipped.write_text("schema = 1\n[defaults]\nseed = -1\n")
    monkeypatch.setattr(config, "shipped_file", lambda: shipped)
    reset_caches()
    loaded = config.load_config()
    with pytest.raises(zoo.RegistryError, match=r"registry.toml, line 3: defaults.seed is -1"):
        _ = loaded.defaults
    monkeypatch.undo()
    reset_caches()


def test_user_file_overrides_shipped_defaults():
    user_file('schema = 1\n[defaults]\nbatch_size = 7\n[aliases]\nmine = "resnet18"\n')
    loaded = config.load_config()
    assert loaded.defaults["batch_size"] == 7
    assert loaded.defaults["seed"] == 0
    assert "registry.toml" in loaded.origins["defaults.batch_size"]
    assert zoo.get("mine").id == "torchvision/resnet18"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("schema = 1\n[defaults]\nbatchsize = 7\n", 3, "did you mean batch_size"),
        ("schema = 1\n\n[defaults]\nseed = 'x'\n", 4, "must be of type int"),
        ("schema = 1\n[alias]\nx = 'y'\n", 2, "did you mean aliases"),
        ("schema = 1\n[aliases]\nx = 3\n", 3, "must be of type str"),
        ("schema = 9\n", 1, "schema must be 1"),
        ("schema = \n", 1, "not valid TOML"),
        ("schema = 1\n[aliases]\n\"x y\" = ''\n", 3, 'aliases."x y" is empty'),
        ("schema = 1\naliases = 3\n", 2, "aliases must be of type table"),
        ("schema = 1\nweights_dir = 3\n", 2, "weights_dir must be of type str"),
        ('schema = 1\nweights_dir = "a\\u0000"\n', 2, "weights_dir is not a path"),
        ("defaults.seed = 1\ndefaults.sed = 1\nschema = 1", 2, "did you mean seed"),
    ],
)
def test_invalid_file_error_names_file_and_line(text, line, message):
    path = user_file(text)
    with pytest.raises(zoo.RegistryError) as caught:
        config.load_config()
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert f"line {line}" in str(caught.value)


def test_all_faults_of_a_file_are_named_in_order():
    path = user_file("""schema = 1
        [defaults]
        batchsize = 7
        seed = -1
        momentum = "x"
        [aliases]
        mine = 5
        [backbones."house/leaf"]
        extends = "lite0"
        head = "a..b"
        weights = []
        [backbones."bad name"]
        extends = "lite0"
        [alias]
        """)
    with pytest.raises(zoo.RegistryError) as caught:
        config.load_config()
    text = str(caught.value)
    assert text.startswith(f"{path} has 8 errors: line 3: unknown key defaults.batchsize (did you")
    assert re.findall(r"line (\d+): ", text) == ["3", "4", "5", "7", "10", "11", "12", "14"]
    assert len(caught.value.parts) == 8
    assert len(text.splitlines()) == 1
    path = user_file("schema = 1\n[defaults]\n" + "\n".join(f"key{i} = 1" for i in range(20)))
    with pytest.raises(zoo.RegistryError, match=r"has 20 errors: .*line 10: .*; and 12 more$"):
        config.load_config()


@pytest.mark.parametrize(
    "wrong",
    [
        "random_epochs = 0",
        "head_epochs = -3",
        "seed = -1",
        f"seed = {2**63}",
        "batch_size = 0",
        "random_lr = -1.0",
        "head_lr = 0",
        "all_lr = nan",
        "tune_lr = inf",
        "val_fraction = 2.0",
        "val_fraction = 0",
        "val_fraction = 1.0",
        "weight_decay = -0.1",
        "weight_decay = inf",
        "momentum = 1.5",
    ],
)
def test_default_out_of_range_names_line_and_range(wrong):
    path = user_file(f"schema = 1\n[defaults]\n{wrong}\n")
    key = wrong.partition(" ")[0]
    with pytest.raises(zoo.RegistryError, match=rf"line 3: defaults.{key} is .*give a number") as e:
        config.load_config()
    assert str(path) in str(e.value)


def test_config_layers_override_in_order(tmp_path):
    entry = '[backbones."house/{0}"]\nextends = "{1}"\n{2}\n'
    user = user_file(
        'schema = 1\n[defaults]\nseed = 3\nbatch_size = 7\n[aliases]\none = "a"\ntwo = "b"\n'
        + entry.format("leaf", "resnet18", "license = 'MIT'")
        + entry.format("oak", "resnet18", "")
    )
    given = tmp_path / "given.toml"
    given.write_text(
        'schema = 1\n[defaults]\nseed = 5\n[aliases]\ntwo = "c"\n'
        + entry.format("leaf", "resnet50", "")
    )
    plain, merged = config.load_config(), config.load_config(given)
    assert (plain.defaults["seed"], merged.defaults["seed"]) == (3, 5)
    assert merged.defaults["batch_size"] == 7
    assert (merged.aliases["one"], merged.aliases["two"]) == ("a", "c")
    assert merged.origins["defaults.seed"] == str(given)
    assert merged.origins["defaults.batch_size"] == str(user)
    # Whole entries are replaced, with all of their keys.
    assert list(merged.backbones) == ["house/leaf", "house/oak"]
    assert merged.backbones["house/leaf"].extends == "resnet50"
    assert merged.backbones["house/leaf"].license is None
    assert plain.backbones["house/leaf"].license == "MIT"


def test_faults_of_several_layers_are_named_together(tmp_path):
    user = user_file("schema = 1\n[defaults]\nseed = -1\n")
    given = tmp_path / "given.toml"
    given.write_text("schema = 1\n[defaults]\nepoch = 2\n")
    with pytest.raises(zoo.RegistryError) as caught:
        config.load_config(given)
    for line in (f"{user}, line 3: defaults.seed is -1", f"{given}, line 3: "):
        assert line in str(caught.value)


def test_missing_registry_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(zoo.RegistryError, match=r"cannot read .*none\.toml"):
        config.load_config(tmp_path / "none.toml")
    (tmp_path / "registry.toml").write_text("not read unasked")
    assert config.load_config().backbones == {}


def test_default_ranges_accept_integers_and_bounds():
    user_file("schema = 1\n[defaults]\nmomentum = 0\nhead_epochs = 1\nhead_lr = 1\n")
    assert config.load_config().defaults["head_lr"] == 1


GOOD = """
schema = 1
weights_dir = "weights"
[defaults]
batch_size = 7
seed = 3
head_lr = 0.5
[aliases]
mine = "resnet18"
[plugins.leaf]
depth = 3
[backbones."house/leaf"]
extends = "torchvision/resnet18"
head = "fc"
preprocess = { size = 64, mean = [0.5, 0.5, 0.5] }
[[backbones."house/leaf".weights]]
tag = "one"
file = "leaf.safetensors"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
num_classes = 7
classes = ["a", "b", "c", "d", "e", "f", "g"]
"""
PIECES = [
    *("=", "[", "]", "[[", "}", '"', "'", "#", "\n", ".", ",", "-1", "0x", "1e999", "nan", "inf"),
    *("true", "9" * 5000, "1979-13-01", "2000-01-01", "\x00", "\ud800", "\u202e", "\x1b[2J", "\r"),
    *('"../../up"', '"\\u0000"', "{}", "[[]]", "[" * 3000, "schema", "x = {y = {z = 1}}", '"""'),
]


def mutated(seed: int) -> bytes:
    """Return a registry file with one to three seeded changes."""
    chance = random.Random(seed)
    text = GOOD
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text))
        end = at + chance.choice([0, 0, 1, 5, 40])
        text = text[:at] + chance.choice([*PIECES, "", text[at : at + 60]]) + text[end:]
    data = bytearray(text.encode(errors="surrogatepass"))
    if chance.random() < 0.3:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def check_mutations(path, seeds) -> dict[str, int]:
    """Read mutated registry files, and derive their backbones."""
    counts = {"read": 0, "refused": 0}
    for seed in seeds:
        path.write_bytes(mutated(seed))
        try:
            _, entries = config.read_file(path)
            for entry in entries.values():
                entry.derive(zoo.get("torchvision/resnet18"))
        except zoo.UsageError as error:
            counts["refused"] += str(path) in error.message
        else:
            counts["read"] += 1
    assert sum(counts.values()) == len(seeds)
    return counts


def test_unchanged_registry_file_of_mutations_is_read(tmp_path):
    path = tmp_path / "registry.toml"
    path.write_text(GOOD)
    _, entries = config.read_file(path)
    assert entries["house/leaf"].derive(zoo.get("torchvision/resnet18")).preprocess.height == 64


def test_mutated_registry_files_are_refused_or_read(tmp_path):
    counts = check_mutations(tmp_path / "registry.toml", range(600))
    assert counts["refused"] > 300
    assert counts["read"] > 10


@pytest.mark.faults
def test_many_mutated_registry_files_are_refused_or_read(tmp_path):
    counts = check_mutations(tmp_path / "registry.toml", range(600, 30_000))
    assert counts["refused"] > 15_000


def test_registry_that_is_no_file_is_refused_without_waiting(tmp_path, cli):
    os.mkfifo(tmp_path / "fifo")
    code, out, err = cli("list", "--registry", tmp_path / "fifo")
    assert (code, out) == (2, "")
    assert "it is a FIFO, not a regular file" in err
