"""Line numbers of keys: quoted, dotted, nested, in arrays of tables and inside strings."""

import pytest

import zoo
from zoo.registry.tomlfile import TomlFile, dotted_key

TEXT = '''schema = 1 # [no table
"a b".c = 3
[defaults]
seed = """
[no]
x = 1
"""
[backbones."house/leaf"]
extends = "r"
weights = [
  { tag = "a", sha256 = "1", preprocess = {size = 3} },
  # a note
  { tag = "b", sha256 = "2" },
]
classes = [
 "a", # ]
 "b",
]
license = "x"

[[backbones."house/oak".weights]]
tag = 'x'
[backbones.'house/oak'.weights.preprocess]
size = 3
[[backbones."house/oak".weights]]
tag = \'\'\'
[[y]]\'\'\'
[backbones."house/oak".weights.preprocess]
size = 5
'''


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_of_every_key(tmp_path, ending):
    path = tmp_path / "a.toml"
    path.write_text(TEXT, newline=ending)
    file = TomlFile(path)
    rows = TEXT.split("\n")
    leaf, oak = ("backbones", "house/leaf"), ("backbones", "house/oak")
    for keys, row in {
        ("schema",): 1,
        ("a b", "c"): 2,
        ("defaults", "seed"): 4,
        leaf: rows.index('[backbones."house/leaf"]') + 1,
        (*leaf, "weights"): 10,
        (*leaf, "weights", 0, "preprocess", "size"): 11,
        (*leaf, "weights", 1, "tag"): 13,
        (*leaf, "license"): rows.index('license = "x"') + 1,
        (*oak, "weights", 0, "tag"): 22,
        (*oak, "weights", 0, "preprocess", "size"): 24,
        (*oak, "weights", 1): 25,
        (*oak, "weights", 1, "preprocess", "size"): 29,
    }.items():
        assert file.line(*keys) == row, keys


def test_line_of_missing_key_is_that_of_table(tmp_path):
    (tmp_path / "a.toml").write_text(TEXT)
    file = TomlFile(tmp_path / "a.toml")
    assert file.line("backbones", "house/leaf", "weights", 1, "url") == 13
    assert file.line("backbones", "house/leaf", "head") == 8
    assert file.line("nothing") == 1


def test_dotted_key_quotes_like_toml():
    assert dotted_key(("backbones", "house/leaf", "weights", 0, "tag")) == (
        'backbones."house/leaf".weights[0].tag'
    )


@pytest.mark.parametrize("content", [b"schema = \n", b"\xff\xfe", b"a = " + b"[" * 100_000, None])
def test_unreadable_file_error_names_path(tmp_path, content):
    path = tmp_path / "a.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(zoo.RegistryError, match=r"a\.toml"):
        TomlFile(path)
