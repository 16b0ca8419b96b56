"""The options of plugins: registered by a schema, set in `registry.toml` and the environment."""

import sys

import pytest

import zoo
from zoo.files import config_dir
from zoo.registry.plugins import FAILED
from zoo.registry.registry import load_registry
from zoo.testing.fixtures import reset_caches

PLUGIN = """
    import zoo
    seen = []

    @zoo.hookimpl
    def zoo_register_options():
        yield zoo.PluginOption("interval", 10, "epochs between reports", minimum=1, maximum=99)
        yield zoo.PluginOption("ratio", 0.5, "share of the images")
        yield zoo.PluginOption("mode", "brief", "length of a report", choices=("brief", "long"))
        yield zoo.PluginOption("quiet", False, "whether to print nothing")

    @zoo.hookimpl
    def zoo_before_fit(event, options):
        seen.append(options)

    @zoo.hookimpl(wrapper=True)
    def zoo_after_fit(options):
        seen.append(options)
        return (yield)
"""
DEFAULTS = {"interval": 10, "ratio": 0.5, "mode": "brief", "quiet": False}


@pytest.fixture
def leaf(install):
    install("leaf-log", PLUGIN, package="plugin_leaf_log")


def user_file(text):
    path = config_dir() / "registry.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"schema = 1\n{text}")
    reset_caches()
    return path


def options():
    return load_registry().plugin_options["leaf-log"]


def test_environment_precedes_files_and_defaults(leaf, monkeypatch, tmp_path):
    assert options() == DEFAULTS
    user_file("[plugins.leaf-log]\ninterval = 3\nratio = 1\nquiet = true\n")
    assert options() == {**DEFAULTS, "interval": 3, "ratio": 1, "quiet": True}
    other = tmp_path / "other.toml"
    other.write_text('schema = 1\n[plugins.leaf-log]\ninterval = 4\nmode = "long"\n')
    both = {"interval": 4, "ratio": 1, "mode": "long", "quiet": True}
    assert load_registry(file=other).plugin_options["leaf-log"] == both
    for name, value in (("INTERVAL", "5"), ("QUIET", "no"), ("MODE", ""), ("RATIO", "2e-1")):
        monkeypatch.setenv(f"ZOO_PLUGIN_LEAF_LOG_{name}", value)
    reset_caches()
    assert load_registry(file=other).plugin_options["leaf-log"] == {
        "interval": 5,
        "ratio": 0.2,
        "mode": "long",
        "quiet": False,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("intervall = 3", "plugins.leaf-log.intervall is not an option .*did you mean interval"),
        ("zzz = 3", "its options: interval, ratio, mode, quiet"),
        ("interval = 0", "interval is 0; give a value of type int and at least 1 and at most 99"),
        ("interval = true", "interval is True"),
        ("interval = 2.0", "interval is 2.0"),
        ("mode = 'x'", "mode is 'x'; give one of brief, long"),
        ("quiet = 1", "quiet is 1; give a value of type bool"),
        ("ratio = nan", "ratio is nan"),
    ],
)
def test_invalid_table_names_file_line_and_key(leaf, line, message):
    path = user_file(f"[plugins.leaf-log]\n{line}\n")
    assert load_registry().find(["leaf*"]) == []
    with pytest.raises(zoo.RegistryError, match=message) as error:
        options()
    assert str(error.value).startswith(f"{path}, line 3: plugins.leaf-log.")


@pytest.mark.parametrize(
    ("name", "value"), [("INTERVAL", "x"), ("INTERVAL", "100"), ("QUIET", "maybe"), ("MODE", "b")]
)
def test_invalid_variable_is_a_usage_error(leaf, monkeypatch, name, value):
    monkeypatch.setenv(f"ZOO_PLUGIN_LEAF_LOG_{name}", value)
    with pytest.raises(zoo.UsageError, match=f"ZOO_PLUGIN_LEAF_LOG_{name} is '{value}'; give"):
        options()


def test_table_that_is_no_table_is_refused():
    user_file("plugins.leaf = 3\n")
    with pytest.raises(zoo.RegistryError, match=r"line 2: plugins.leaf must be of type table"):
        load_registry()


def test_table_of_missing_plugin_is_warned_of(leaf, caplog, monkeypatch):
    user_file("[plugins.leaf-logg]\ninterval = 3\n")
    assert options() == DEFAULTS
    (line,) = caplog.messages
    assert "[plugins.leaf-logg]: no plugin has that name; did you mean leaf-log?" in line
    monkeypatch.setenv("ZOO_PLUGINS", "-leaf-log")
    user_file("[plugins.leaf-log]\nunknown = 3\n")
    assert "leaf-log" not in load_registry().plugin_options
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "given",
    [
        '"Name", 1, "help"',
        '"name", None, "help"',
        '"name", 0, "help", minimum=1',
        '"name", "a", "help", choices=("b",)',
    ],
)
def test_invalid_option_leaves_the_plugin_out(install, given, caplog):
    source = "import zoo\n\n@zoo.hookimpl\ndef zoo_register_options():\n    yield zoo.PluginOption"
    install("bad", f"{source}({given})\n")
    (record,) = [record for record in load_registry().host.records if record.name == "bad"]
    assert (record.status, record.options) == (FAILED, ())
    assert "plugin 'bad'" in caplog.text


def test_observer_receives_its_own_options(leaf, install, tinynet, image_folder, cli, monkeypatch):
    install("other", PLUGIN.replace('"brief",', '"long",', 1))
    file = user_file("[plugins.leaf-log]\ninterval = 3\n")
    quick = {"weights": "none", "device": "cpu", "epochs": 1, "train": "head"}
    monkeypatch.chdir(image_folder.parent)
    zoo.finetune(tinynet, data=image_folder, **quick)
    expected = {**DEFAULTS, "interval": 3}
    assert sys.modules["plugin_leaf_log"].seen == [expected] * 2
    assert sys.modules["plugin_other"].seen == [{**DEFAULTS, "mode": "long"}] * 2
    with pytest.raises(TypeError):
        sys.modules["plugin_other"].seen[0]["mode"] = "brief"
    file.write_text("schema = 1\n[plugins.leaf-log]\ninterval = 0\n")
    reset_caches()
    given = ["--data", image_folder, "--weights", "none", "--dry-run"]
    code, out, err = cli("finetune", tinynet, *given)
    assert (code, out) == (2, "")
    assert "line 3: plugins.leaf-log.interval is 0; give" in err
