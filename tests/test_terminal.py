"""What is said on stderr: one line each, whatever a name holds and whoever reads."""

import sys

import pytest

from zoo.terminal import Progress, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 猫, a  b", "plain, é, 猫, a  b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
        ("gpj.\u202eexe\u2028", r"gpj.\u202eexe\u2028"),
        ("bad\udcff", r"bad\udcff"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_nothing_breaks_a_line_or_steers_a_terminal(text, shown):
    assert printable(text) == shown


def test_a_notice_is_one_line(capsys):
    Progress().notice("class 'a\nb\x1b[31m\udcff'")
    Progress(quiet=True).notice("nothing")
    assert capsys.readouterr().err == "class 'a\\nb\\x1b[31m\\udcff'\n"


def test_what_cannot_be_said_stops_nothing(monkeypatch, capsys):
    for stream in (None, open("/dev/full", "w", buffering=1)):  # noqa: PTH123, SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        Progress().notice("a notice")
        assert list(Progress().wrap([1, 2], 2, "label")) == [1, 2]
    assert capsys.readouterr().out == ""
