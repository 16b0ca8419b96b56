"""docs/json.md: its rows are the keys and types of the real output of every command."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import zoo
from tests.docs.passages import read_page
from tests.inference.shards import write_shard
from tests.tasks.segmentation.conftest import NETWORKS
from tests.tasks.segmentation.scenes import write_scenes
from zoo.cli.group import zoo_group

PAGE = read_page("json.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
OBSERVER = """
    import zoo

    @zoo.hookimpl
    def zoo_register_options():
        yield zoo.PluginOption("every", 1, "epochs between two lines", minimum=1)

    @zoo.hookimpl
    def zoo_register_weights():
        yield zoo.AddedWeights(
            "plugin_leaf/leaf", zoo.Weights("v1", url="https://example.org/v1-00000000.pth")
        )

    @zoo.hookimpl
    def zoo_after_epoch(event):
        pass
"""
UNREACHABLE = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        weights = zoo.Weights("v1", url="http://127.0.0.1:9/v1-00000000.pth", num_classes=7)
        head, preprocess = zoo.Head("fc"), zoo.Preprocess(32)
        yield zoo.Backbone("gone", "torch.nn:Identity", (head,), preprocess, weights=(weights,))
"""
TRAIN = ("--weights", "none", "--device", "cpu", "--quiet")


def table(command: str) -> dict[str, str]:
    """Return the types by key of the table of a command."""
    _, _, after = TEXT.partition(f"\n| key of `{command}` |")
    assert after, f"{command} has no table"
    rows = [line.strip("| ").split(" | ") for line in after.partition("\n\n")[0].splitlines()[2:]]
    assert all(len(row) == 3 and row[2] for row in rows), rows
    return {key: kind for cells, kind, _ in rows for key in re.findall(r"`([^`]+)`", cells)}


def leaves(value: Any, path: str, rows: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield path and value of each documented key, and of keys that are not documented."""
    inside = [row for row in rows if row.startswith((f"{path}.", f"{path}[]."))] if path else rows
    if path in rows or not inside:
        yield path, value
    elif isinstance(value, dict):
        data = next((re.match(r"\{\w+\}", row[len(path) :].lstrip(".")) for row in inside), None)
        for key, item in value.items():
            step = data[0] if data else key
            yield from leaves(item, f"{path}.{step}" if path else step, rows)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{path}[]", rows)
    else:
        yield path, value


def has_type(value: Any, kind: str) -> bool:
    """Return whether a value is of a type such as `array of strings or null`."""
    return any(_is(value, name) for name in kind.split(" or "))


def _is(value: Any, name: str) -> bool:
    outer, _, inner = name.partition(" of ")
    if not inner:
        return type(value) in TYPES[name]
    item = re.sub("^(array|[a-z]+)s", r"\1", inner)  # `arrays of objects` to `array of objects`
    return outer == "array" and isinstance(value, list) and all(_is(each, item) for each in value)


def check(command: str, *outputs: Any) -> None:
    """Compare the outputs of a command, objects or lists of objects, with its table."""
    rows, seen = table(command), set()
    items = [item for each in outputs for item in (each if isinstance(each, list) else [each])]
    for item in items:
        for path, value in leaves(item, "", rows):
            assert path in rows, f"{command} prints {path!r}: {value!r:.80}"
            assert has_type(value, rows[path]), f"{path} of {command} is {value!r:.80}"
            seen.add(path)
    assert seen == {*rows}, f"{command} never printed {sorted({*rows} - seen)}"


@pytest.fixture
def run(cli, tmp_path, monkeypatch, own_cache):
    """Return a function that runs a command with `--json`, and returns what it prints."""
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm,-report")

    def run_json(*arguments, code=0, flag="--json"):
        actual, out, err = cli(*arguments, flag)
        assert actual == code, err
        if flag == "--json-lines":
            return [json.loads(line) for line in out.splitlines()]
        return json.loads(out) if out else json.loads(err.splitlines()[-1])

    return run_json


def test_json_page_has_every_command_with_json():
    def commands(group, prefix="") -> Iterator[str]:
        for name in group.list_commands(None):
            command = group.get_command(None, name)
            if any(option.name == "as_json" for option in command.params):
                yield f"{prefix}{name}"
            if hasattr(command, "list_commands"):
                yield from commands(command, f"{prefix}{name} ")

    documented = re.findall(r"\n\| key of `zoo ([^`]+)` \|", TEXT)
    assert sorted({name.split(" --")[0] for name in documented}) == sorted(commands(zoo_group))


def test_json_page_describes_the_registry(run, tinynet, install, tmp_path, plugin_file):
    install("watch", OBSERVER)
    registry = tmp_path / "registry.toml"
    entry = f'[backbones."house/leaf"]\nextends = "{tinynet}"\n'
    registry.write_text(f"schema = 1\n{entry}")
    broken = plugin_file("broken", "import zoo\n\n\nraise OSError('no disk')\n")
    check("zoo list", run("list"), run("list", "--registry", registry))
    check("zoo show", *(run("show", name) for name in (tinynet, "resnet18", "lite0")))
    check("zoo plugins", run("plugins", "--plugin", broken))
    shown = [run("plugins", "show", name) for name in ("watch", "efficientnet_lite", "tasks")]
    failed = run("plugins", "show", "broken", "--plugin", broken)
    check("zoo doctor", run("doctor", "--plugin", broken, code=5))
    check("zoo plugins show", *shown, failed)


@pytest.mark.slow
def test_json_page_describes_ranks_and_checks(run, tinynet, install, image_folder):
    install("watch", OBSERVER)
    ranked = run("rank", "lite0", tinynet, "--data", image_folder)
    check("zoo rank", ranked)
    names = "tasks", "watch", "tiny"
    check("zoo plugins check", *(run("plugins", "check", name) for name in names))


def test_json_page_describes_files_and_data(run, tinynet, install, image_folder, tmp_path):
    install("gone", UNREACHABLE)
    model = zoo.get(tinynet).build(classes=3)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    names = tmp_path / "names.txt"
    names.write_text("flag\nmammal\nplaying_card\n")
    imported = run("import", tmp_path / "own.pth", "--as", tinynet, "--classes", names)
    check("zoo import", imported, run("import", tmp_path / "own.pth", "--out", "plain.safetensors"))
    fetched = run("fetch", "lite0", "--to", tmp_path / "weights")
    check("zoo fetch", fetched, run("fetch", "gone/gone", "--to", "w2", code=4))
    check("zoo check", run("check", image_folder))
    check("zoo embed", run("embed", "own.safetensors", "--data", image_folder, "--out", "e.npy"))
    image = next((image_folder / "val").rglob("*.*")).read_bytes()
    members = {"1.jpg": image, "1.cls": b"cat", "2.jpg": image, "2.npy": b""}
    write_shard(tmp_path / "a.tar", members)
    (tmp_path / "b.tar").write_bytes(b"no tar")
    shards = ("--data", "*.tar", "--out", "features", "--part", "1/1")
    check("zoo embed --part", run("embed", "own.safetensors", *shards, code=3))
    check("zoo cache", run("cache"))
    check("an error", run("show", "resnet81", code=2), run("check", "nowhere", code=3))


def test_json_page_describes_a_training(run, tinynet, image_folder, tmp_path):
    options = ("--data", image_folder, *TRAIN)
    plan = run("finetune", tinynet, *options, "--train", "stages:1", "--dry-run")
    weighted = ("--class-weights", "balanced", "--augment", "flip", "--group-by", "[^/]+$")
    check(
        "zoo finetune --dry-run", plan, run("finetune", tinynet, *options, *weighted, "--dry-run")
    )
    probe = run("finetune", tinynet, *options, "--recipe", "probe", "--out", "run")
    epochs = run("finetune", tinynet, *options, "--epochs", "1")
    check("zoo finetune", probe, epochs)
    check("zoo report", run("report", "run"))
    check("zoo report --json RUN RUN", run("report", "run", epochs["folder"]))
    onnx = run("export", "run")
    check("zoo export", {**onnx, "architecture": "resnet18", "logits_difference": 0.0})
    check("zoo evaluate", run("evaluate", "run", "--data", image_folder))
    image = next((image_folder / "val" / "flag").iterdir())
    answers = run("predict", "run", image, "nowhere.png", code=3)
    lines = run("predict", "run", image, "nowhere.png", code=3, flag="--json-lines")
    assert answers == lines
    further = ("--explain", "maps", "--min-probability", "1")
    check("zoo predict", answers, run("predict", "run", image, *further))


def test_json_page_describes_segmentation(run, install, tmp_path):
    install("dense", NETWORKS)
    scenes = write_scenes(tmp_path / "scenes", 6, seed=1)
    options = ("--data", scenes, *TRAIN, "--epochs", "1", "--out", "run")
    run("finetune", "dense/tinyfcn", *options)
    check("zoo evaluate --task segmentation", run("evaluate", "run", "--data", scenes))
    image = next((scenes / "images").iterdir())
    answers = run("predict", "run", image, "--out", tmp_path / "masks")
    check("zoo predict --task segmentation", answers)
