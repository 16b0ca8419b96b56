"""Output on stderr: one printable line each, and failed writes ignored."""

import json
import sys
from contextlib import suppress

import pytest

from zoo.terminal import Progress, printable, printable_json


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain, é, 猫, a  b", "plain, é, 猫, a  b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
        ("gpj.\u202eexe\u2028", r"gpj.\u202eexe\u2028"),
        ("a\u200f\u061c\u2067b", r"a\u200f\u061c\u2067b"),
        ("bad\udcff", r"bad\udcff"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_printable_escapes_control_characters(text, escaped):
    assert printable(text) == escaped


def test_printable_json_has_equal_value():
    value = {"a\x9b\u202e\u2028": ["\x1b[2J\n\x7f", "é猫\u200c", "bad\udcff"]}
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    assert "é猫" in text


def test_notice_prints_one_line(capsys):
    Progress().notice("class 'a\nb\x1b[31m\udcff'")
    Progress(quiet=True).notice("nothing")
    assert capsys.readouterr().err == "class 'a\\nb\\x1b[31m\\udcff'\n"


def test_progress_ignores_failed_writes(monkeypatch, capsys):
    full = open("/dev/full", "w", buffering=1)  # noqa: PTH123, SIM115
    for stream in (None, full):
        monkeypatch.setattr(sys, "stderr", stream)
        Progress().notice("a notice")
        assert list(Progress().wrap([1, 2], 2, "label")) == [1, 2]
    assert capsys.readouterr().out == ""
    # Its buffer is written again when it is closed, which from Python 3.13 on is not ignored.
    with suppress(OSError):
        full.close()
