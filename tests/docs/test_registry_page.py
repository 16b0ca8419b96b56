"""docs/registry.md: it has a row with a valid example for every key of the schema."""

import re
import tomllib

import pytest

import zoo
from tests.docs.page_runner import PageRunner
from tests.docs.passages import read_page
from zoo.options.table import DEFAULTS
from zoo.registry import config, derived

PAGE = read_page("registry.md")
TEXT = PAGE.path.read_text(encoding="utf-8")
BLOCKS = [block for blocks in PAGE.sections.values() for block in blocks]
DIGEST = "0" * 64
WEIGHTS = f'tag = "v", sha256 = "{DIGEST}"'
LEAF = '[backbones."a/b"]\nextends = "resnet18"\n'

# By the header of a table: the schema of its keys, and a file around the example of a key.
TABLES = {
    "key": (config.TABLES, "{key} = {value}\n"),
    "key of a backbone": (derived.ENTRY, '[backbones."a/b"]\n{key} = {value}\n'),
    "key of weights": (derived.WEIGHTS, LEAF + "weights = [{{ {key} = {value} }}]\n"),
    "key of a head": (derived.HEAD, LEAF + "heads = [{{ {key} = {value} }}]\n"),
    "key of a preprocess": (derived.PREPROCESS, LEAF + "preprocess = {{ {key} = {value} }}\n"),
}
# What else a file needs, so that a key is valid.
REQUIRED = {
    "schema": "",
    "key of a backbone": 'extends = "resnet18"\n',
    "key of weights": f'tag = "v", file = "v.safetensors", sha256 = "{DIGEST}"',
    "key of a head": 'path = "fc"',
}


def table(head: str) -> list[list[str]]:
    """Return the cells of the table whose header starts with `head`."""
    _, _, after = TEXT.partition(f"\n| {head} |")
    body = after.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in body]


def completed(head: str, key: str, template: str, value: str) -> str:
    """Return a registry file with a key, and the keys that are required beside it."""
    others = re.split(r", |\n", REQUIRED.get(head, ""))
    exclusive = {"file", "url", "hub"}
    needed = [
        item
        for item in filter(None, others)
        if (name := item.partition(" = ")[0]) != key and not {name, key} <= exclusive
    ]
    joined = "\n" if head == "key of a backbone" else ", "
    text = template.format(key=key, value=joined.join([value, *needed]))
    return text if key == "schema" else f"schema = 1\n{text}"


@pytest.mark.parametrize("head", TABLES)
def test_registry_page_has_every_key(head):
    assert [key.strip("`") for key, *_ in table(head)] == list(TABLES[head][0])


EXAMPLES = [(head, *row[:2]) for head in TABLES for row in table(head)]


@pytest.mark.parametrize(("head", "key", "value"), EXAMPLES)
def test_registry_page_examples_are_valid(head, key, value, tmp_path):
    key, value = key.strip("`"), value.strip("`")
    path = tmp_path / "registry.toml"
    path.write_text(completed(head, key, TABLES[head][1], value))
    content, _ = config.read_file(path)
    assert tomllib.loads(f"{key} = {value}")[key]
    assert content["schema"] == 1
    path.write_text(path.read_text().replace(f"{key} =", f"{key}x =", 1))
    with pytest.raises(zoo.UsageError, match=f"unknown key .*{key}x|must be 1"):
        config.read_file(path)


def test_registry_page_lists_every_default():
    shipped = tomllib.loads(config.shipped_file().read_text())["defaults"]
    listed = {key.strip("`"): (value.strip("`"), kind) for key, value, kind, _ in table("default")}
    assert listed == {key: (str(shipped[key]), str(DEFAULTS[key])) for key in shipped}
    assert {*listed} == {*DEFAULTS}


def test_registry_page_commands_print_as_documented(page_folder, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
    runner = PageRunner(page_folder, monkeypatch, capsys)
    for block in BLOCKS:
        runner.execute(block)
    runner.forget()
    assert runner.done == len(BLOCKS) == 3
    assert runner.code == zoo.ExitCode.USAGE
