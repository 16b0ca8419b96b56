"""`zoo plugins show`: the whole story of a plugin, working or not."""

import json

from zoo.cli.plugins_show import FEW

GOOD = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        for name in {names!r}:
            yield zoo.Backbone(
                name, "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32)
            )

    @zoo.hookimpl
    def zoo_after_fit(event):
        return None
"""


def test_one_that_works(cli, install):
    install("leaf", GOOD.format(names=["leafnet", "oaknet"]), version="2.1")
    code, out, _ = cli("plugins", "show", "leaf", "--json")
    said = json.loads(out)
    assert code == 0
    assert 0 < said.pop("seconds") < 60
    assert said == {
        "name": "leaf",
        "version": "2.1",
        "status": "ok",
        "backbones": 2,
        "error": None,
        "distribution": "plugin-leaf",
        "tasks": [],
        "module": "plugin_leaf",
        "file": None,
        "hooks": ["zoo_after_fit", "zoo_register_backbones"],
        "names": ["leafnet", "oaknet"],
        "traceback": None,
        "conflicts": [],
    }
    code, out, _ = cli("plugins", "show", "leaf")
    assert code == 0
    assert "plugin-leaf 2.1" in out
    assert "2: leafnet, oaknet" in out
    assert "zoo_after_fit, zoo_register_backbones" in out
    assert "error" not in out


def test_a_family_is_counted_and_a_few_are_named(cli):
    code, out, _ = cli("plugins", "show", "timm")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("backbones")]
    assert f"and {1371 - FEW:,} more, which `zoo list --source timm` shows" in line
    said = json.loads(cli("plugins", "show", "timm", "--json")[1])
    assert said["backbones"] == len(said["names"]) == 1371


def test_one_that_failed_with_its_traceback(cli, install):
    install("bad", "def leaf():\n    raise RuntimeError('no leaf today')\nleaf()\n")
    code, out, _ = cli("plugins", "show", "bad")
    assert code == 0
    assert "status      failed" in out
    assert "error       RuntimeError: no leaf today" in out
    assert "Traceback" in out
    assert 'plugin_bad.py", line 2, in leaf' in out
    assert "hooks       none known" in out
    said = json.loads(cli("plugins", "show", "bad", "--json")[1])
    assert (said["status"], said["backbones"], said["names"]) == ("failed", 0, [])
    assert "line 2, in leaf" in said["traceback"]


def test_hooks_of_one_that_failed_after_its_import(cli, install):
    install(
        "bad",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            return [42]
        """,
    )
    said = json.loads(cli("plugins", "show", "bad", "--json")[1])
    assert (said["status"], said["hooks"]) == ("failed", ["zoo_register_backbones"])


def test_a_family_that_fails_when_it_is_read(cli, install):
    install(
        "fam",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Family("zoo-registry", "plugin_fam:enumerate_backbones")

        def enumerate_backbones():
            raise RuntimeError("the library is of another time")
        """,
    )
    code, out, _ = cli("plugins", "show", "fam", "--json")
    said = json.loads(out)
    assert (code, said["status"]) == (0, "failed")
    assert "of another time" in said["error"]


def test_one_in_conflict_and_one_switched_off(cli, install):
    install("leaf", GOOD.format(names=["leafnet"]), package="aaa-first")
    install("leaf", GOOD.format(names=["othernet"]), package="bbb-second")
    code, out, _ = cli("plugins", "show", "leaf", "--json")
    said = json.loads(out)
    assert (code, said["distribution"], said["names"]) == (0, "aaa-first", ["leafnet"])
    (other,) = said["conflicts"]
    assert (other["distribution"], other["status"]) == ("bbb-second", "conflict")
    assert "aaa-first" in other["error"]
    assert (other["backbones"], other["names"]) == (0, [])
    out = cli("plugins", "show", "leaf")[1]
    assert out.index("aaa-first 1.0") < out.index("bbb-second 1.0")
    code, out, _ = cli("plugins", "show", "leaf", "--no-plugin", "leaf")
    assert code == 0
    assert "status      off" in out


def test_an_unknown_name_names_the_nearest(cli):
    code, out, err = cli("plugins", "show", "tim")
    assert (code, out) == (2, "")
    assert err == "zoo: error: no plugin is named 'tim'; did you mean timm?\n"
    assert "torchvision" in cli("plugins", "show", "qqqq")[2]


def test_it_imports_no_torch():
    import subprocess
    import sys

    probe = (
        "import sys, zoo.cli as c\n"
        "try: c.main(['plugins', 'show', 'timm'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
