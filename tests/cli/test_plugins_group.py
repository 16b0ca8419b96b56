"""`zoo plugins` with and without a subcommand."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import zoo.cli
from zoo.cli.plugins import COMMANDS, command


def command_entries():
    """Return the entries whose modules exist."""
    folder = Path(zoo.cli.__file__).parent
    return [e for e in COMMANDS if (folder / f"{e.module.rpartition('.')[2]}.py").exists()]


def test_commands_table_matches_modules():
    assert {"show", "new", "check"} <= {entry.name for entry in COMMANDS}
    assert command_entries()
    for entry in command_entries():
        subcommand = importlib.import_module(entry.module).command
        assert subcommand.name == entry.name
        assert subcommand.help


def test_plugins_without_subcommand_lists(cli):
    code, out, err = cli("plugins")
    assert (code, err) == (0, "")
    assert out.split()[:3] == ["NAME", "PACKAGE", "STATUS"]
    code, out, _ = cli("plugins", "--json")
    keys = ["name", "version", "status", "backbones", "error", "seconds", "distribution"]
    keys += ["tasks"]
    assert [list(item) for item in json.loads(out)] == [keys] * len(json.loads(out))


def test_common_options_in_any_position(cli):
    for arguments in (
        ("--no-plugin", "timm", "plugins", "--json"),
        ("plugins", "--no-plugin", "timm", "--json"),
        ("plugins", "--json", "--no-plugin", "timm"),
    ):
        code, out, _ = cli(*arguments)
        assert code == 0
        status = {item["name"]: item["status"] for item in json.loads(out)}
        assert status["timm"] == "off"
    for arguments in (
        ("--no-plugin", "timm", "plugins", "show", "timm", "--json"),
        ("plugins", "--no-plugin", "timm", "show", "timm", "--json"),
        ("plugins", "show", "timm", "--json", "--no-plugin", "timm"),
    ):
        code, out, _ = cli(*arguments)
        assert (code, json.loads(out)["status"]) == (0, "off")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sho", "timm"], "no plugins command is named 'sho'; did you mean show?"),
        (["qqqq"], "see `zoo plugins --help`"),
        (["--jsn"], "--json"),
        (["show"], "NAME"),
        (["show", "timm", "--jsn"], "--json"),
    ],
)
def test_error_is_one_line(cli, arguments, message):
    code, out, err = cli("plugins", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("zoo: error: ")
    assert message in err


def test_json_before_the_subcommand_is_an_error(cli):
    code, out, err = cli("plugins", "--json", "show", "timm")
    assert (code, out) == (2, "")
    assert json.loads(err)["hint"] == "write `zoo plugins show --json`"


def test_help_imports_no_subcommand(cli):
    code, out, _ = cli("plugins", "--help")
    assert code == 0
    for entry in COMMANDS:
        assert entry.summary in out
    probe = (
        "import sys, zoo.cli as c\n"
        "try: c.main(['plugins', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"assert not {{{', '.join(repr(e.module) for e in COMMANDS)}}} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True)


def test_completion_of_subcommands(zoo_process):
    done = zoo_process(_ZOO_COMPLETE="bash_complete", COMP_WORDS="zoo plugins sh", COMP_CWORD="2")
    assert "show" in done.stdout
    assert "check" not in done.stdout
    done = zoo_process(_ZOO_COMPLETE="bash_complete", COMP_WORDS="zoo plugins --j", COMP_CWORD="2")
    assert "--json" in done.stdout
    assert command.name == "plugins"
