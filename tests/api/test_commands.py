"""Commands as functions of Python: each returns what its command prints as JSON."""

import json
from dataclasses import asdict

import pytest
import torch

import zoo
import zoo.testing
from zoo.cli.group import COMMANDS

# The functions of commands that have another name.
FUNCTIONS = {
    "list": "list_backbones",
    "show": "get",
    "import": "import_weights",
    "cache": "list_cache",
    "plugins": "list_plugins",
    "register": "register_model",
}
# For a shell only.
WITHOUT = {"completion"}


def result(done):
    code, out, err = done
    assert code == 0, err
    return json.loads(out)


def test_every_command_is_a_function():
    names = {command.name for command in COMMANDS} - WITHOUT
    assert all(callable(getattr(zoo, FUNCTIONS.get(name, name))) for name in names)


def test_embed_writes_the_file_of_the_command(image_folder, tmp_path, cli):
    given = ("--data", image_folder, "--out", "theirs.safetensors", "--device", "cpu", "--json")
    expected = result(cli("embed", "lite0", *given))
    lite0 = zoo.get("lite0")
    summary = zoo.embed(lite0, image_folder, tmp_path / "ours.safetensors", device="cpu")
    assert summary.pop("path") == str(tmp_path / "ours.safetensors")
    assert expected.pop("path") == "theirs.safetensors"
    del expected["backbone_forwards"]  # none, where another test computed the features before
    assert (summary.pop("backbone_forwards"), summary) == (0, expected)
    written = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("ours", "theirs")]
    assert written[0] == written[1]
    with pytest.raises(zoo.UsageError, match=r"suffix of features\.txt"):
        zoo.embed(lite0, image_folder, "features.txt")
    ranks = zoo.rank(lite0, data=image_folder, device="cpu")
    (ranked,) = result(cli("rank", "lite0", "--data", image_folder, "--device", "cpu", "--json"))
    assert [(r.backbone, r.accuracy, r.knn) for r in ranks] == [
        (ranked["backbone"], ranked["accuracy"], ranked["knn"])
    ]
    assert ranks[0].accuracy > 1 / 3


@pytest.fixture
def unreachable():
    """A backbone whose weights cannot be downloaded."""
    weights = zoo.Weights("far", url="http://127.0.0.1:9/far-0123abcd.pth", num_classes=5)
    heads, preprocess = (zoo.Head("fc"),), zoo.Preprocess(32)
    return zoo.register(
        zoo.Backbone("farnet", "torchvision.models:resnet18", heads, preprocess, (weights,))
    )


def test_rank_raises_where_every_candidate_fails(image_folder, unreachable):
    with pytest.raises(zoo.WeightsError, match=r"127\.0\.0\.1"):
        zoo.rank(unreachable, data=image_folder, device="cpu")


def test_check_reports_what_the_command_prints(image_folder, tmp_path, cli):
    expected = result(cli("check", image_folder, "--json"))
    report = zoo.check(image_folder)
    assert json.loads(json.dumps(report.to_dict())) == expected
    broken = tmp_path / "photos" / "a" / "broken.jpg"
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, image in enumerate(sorted((image_folder / "val" / "flag").iterdir())):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(image.read_bytes())
    broken.write_bytes(b"no image")
    (path,) = zoo.check(tmp_path / "photos").bad
    assert path.endswith("broken.jpg")
    with pytest.raises(zoo.UsageError, match="no plugin registers the task 'segmenting'"):
        zoo.check(image_folder, task="segmenting")


def test_imported_weights_predict(tinynet, image_folder, tmp_path):
    torch.save(zoo.get(tinynet).build(classes=2).state_dict(), tmp_path / "theirs.pth")
    imported = zoo.import_weights(tmp_path / "theirs.pth", zoo.get(tinynet), classes=["oak", "ash"])
    assert (imported.path, imported.classes) == (tmp_path / "theirs.safetensors", ("oak", "ash"))
    assert zoo.load(imported.path).classes == ("oak", "ash")
    with pytest.raises(zoo.UsageError, match=r"theirs\.safetensors exists; give another file"):
        zoo.import_weights(tmp_path / "theirs.pth")


def test_fetch_returns_the_files(tmp_path, cli, unreachable):
    expected = result(cli("fetch", "lite0", "--to", tmp_path / "weights", "--json"))
    fetched = zoo.fetch(zoo.get("lite0"), tmp_path / "weights")
    assert [{**asdict(each), "path": str(each.path)} for each in fetched] == [
        {**each, "error": None} for each in expected
    ]
    wrong = "2 names are wrong: .*resnet81.*lite0 publishes no weights tagged 'x'"
    with pytest.raises(zoo.UsageError, match=wrong):
        zoo.fetch(["resnet81", "lite0"], tmp_path, weights="x")
    with pytest.raises(zoo.WeightsError, match="1 of 1 not fetched: local/farnet far: "):
        zoo.fetch(unreachable, tmp_path)


def test_cache_is_listed_and_cleared(own_cache, cli):
    weights = own_cache / "weights"
    weights.mkdir(parents=True)
    for name in ("a.safetensors", "b.safetensors"):
        (weights / name).write_bytes(b"1234")
    listed = zoo.list_cache("weights")
    expected = [
        (each["kind"], each["path"], each["bytes"]) for each in result(cli("cache", "--json"))
    ]
    assert [(each.kind, str(each.path), each.size) for each in listed] == expected
    with pytest.raises(zoo.UsageError, match="no cache entry matches 'c"):
        zoo.clear_cache("c*")
    assert [each.name for each in zoo.clear_cache("a*")] == ["a.safetensors"]
    assert [each.name for each in zoo.list_cache()] == ["b.safetensors"]


def test_new_plugin_writes_the_files_of_the_command(tmp_path, cli):
    files = zoo.testing.new_plugin("leaf-nets", tmp_path / "ours")
    code, out, _ = cli("plugins", "new", "leaf-nets", "--out", "theirs")
    assert code == 0
    for file in files:
        theirs = tmp_path / "theirs" / file.relative_to(tmp_path / "ours")
        assert f"wrote {theirs.relative_to(tmp_path)}" in out
        assert file.read_bytes() == theirs.read_bytes()
    with pytest.raises(zoo.UsageError, match="leaf_nets is not installed"):
        zoo.testing.check_plugin(tmp_path / "ours")
    with pytest.raises(zoo.UsageError, match=r"^out=.*ours' is not an empty folder"):
        zoo.testing.new_plugin("leaf-nets", tmp_path / "ours")


@pytest.mark.slow
def test_check_plugin_returns_what_the_command_prints(plugin_file, cli, unreachable):
    source = """
        import zoo

        @zoo.hookimpl
        def zoo_after_epoch(event):
            pass
    """
    file = plugin_file("leafwatch", source)
    (item,) = result(cli("plugins", "check", file, "--json"))
    (checked,) = zoo.testing.check_plugin(file)
    assert (checked.kind, checked.name, checked.conforms) == ("plugin", "leafwatch", True)
    names = [(finding.check, finding.status) for finding in checked.findings]
    assert names == [(check["check"], check["status"]) for check in item["checks"]]
    with pytest.raises(zoo.UsageError, match="'local' is registered in this process only"):
        zoo.testing.check_plugin("local")
