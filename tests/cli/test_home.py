"""Commands of a user without a home folder."""

import pytest

from tests.cli.test_streams import shell

# A user who is not in the list of users.
STRANGER = "unshare --map-user=12345 --map-group=12345"


def test_user_without_home_exits_with_6(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if shell(f"{STRANGER} true", tmp_path)[0]:
        pytest.skip("needs a user namespace")
    code, out, err = shell(f"{STRANGER} zoo cache", tmp_path)
    assert (code, out) == (6, "")
    problem = "~/.cache: the user has no home folder"
    hint = "set HOME, or XDG_CACHE_HOME, XDG_CONFIG_HOME and XDG_DATA_HOME"
    assert err == f"zoo: error: {problem}; {hint}\n"
    code, out, err = shell(f"HOME={tmp_path} {STRANGER} zoo cache", tmp_path)
    assert code == 0
    assert str(tmp_path / ".cache/zoo") in err


def test_user_without_home_has_no_registered_model(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if shell(f"{STRANGER} true", tmp_path)[0]:
        pytest.skip("needs a user namespace")
    assert shell(f"{STRANGER} zoo list --mine --json", tmp_path)[:2] == (0, "[]\n")
    code, _, err = shell(f"{STRANGER} zoo evaluate nothing", tmp_path)
    assert code == 2
    assert "nothing" in err
