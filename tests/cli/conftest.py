"""The command line, run in the process of the tests."""

import pytest

from zoo.cli import _run
from zoo.cli.group import Settings


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run a command in this process, in an empty folder; return code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = _run([str(argument) for argument in arguments], Settings())
        out, err = capsys.readouterr()
        return int(code), out, err

    return run
