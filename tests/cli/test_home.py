"""Commands of a user without a home folder."""

from tests.processes import shell


def test_user_without_home_exits_with_6(tmp_path, monkeypatch, stranger):
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = shell(f"{stranger} zoo cache", tmp_path)
    assert (code, out) == (6, "")
    problem = "~/.cache: the user has no home folder"
    hint = "set HOME, or XDG_CACHE_HOME, XDG_CONFIG_HOME and XDG_DATA_HOME"
    assert err == f"zoo: error: {problem}; {hint}\n"
    code, out, err = shell(f"HOME={tmp_path} {stranger} zoo cache", tmp_path)
    assert code == 0
    assert str(tmp_path / ".cache/zoo") in err


def test_user_without_home_has_no_registered_model(tmp_path, monkeypatch, stranger):
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert shell(f"{stranger} zoo list --mine --json", tmp_path)[:2] == (0, "[]\n")
    code, _, err = shell(f"{stranger} zoo evaluate nothing", tmp_path)
    assert code == 2
    assert "nothing" in err
