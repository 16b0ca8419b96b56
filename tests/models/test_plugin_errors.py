"""Errors of a plugin's code are the plugin's, those of the environment are not."""

import errno
from urllib.error import HTTPError, URLError

import pytest

import zoo
from zoo.models.plugin_errors import plugin_errors

MISSING = FileNotFoundError(errno.ENOENT, "no such file", "/a/net.pth")
OF_PLUGIN = {
    "missing": (MISSING, "restore /a/net.pth"),
    "network": (URLError("no route"), "try where there is one"),
    "http": (HTTPError("https://a/b", 404, "gone", {}, None), "try where there is one"),
    "timeout": (TimeoutError("timed out"), "try where there is one"),
    "other": (KeyError("x"), "--debug shows where"),
}


@pytest.mark.parametrize("kind", OF_PLUGIN)
def test_errors_of_plugin_code_become_broken_backbone(kind):
    error, remedy = OF_PLUGIN[kind]
    with (
        pytest.raises(zoo.BrokenBackbone, match="x does not build") as raised,
        plugin_errors("x does not build"),
    ):
        raise error
    assert remedy in raised.value.hint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOMEM])
def test_errors_of_the_environment_pass(number):
    with pytest.raises(OSError, match="refused") as raised, plugin_errors("x does not build"):
        raise OSError(number, "refused")
    assert raised.value.errno == number
