"""`zoo plugins show` of working, failed, conflicting and disabled plugins."""

import json

from timm.models import list_models

from tests.networks import FAILING_FAMILY
from zoo.cli.plugins_show import MAX_NAMES

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


def test_show_working_plugin(cli, install):
    install("leaf", GOOD.format(names=["leafnet", "oaknet"]), version="2.1")
    code, out, _ = cli("plugins", "show", "leaf", "--json")
    item = json.loads(out)
    assert code == 0
    assert 0 < item.pop("seconds") < 60
    assert item == {
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
        "weights": [],
        "options": [],
        "traceback": None,
        "conflicts": [],
    }
    code, out, _ = cli("plugins", "show", "leaf")
    assert code == 0
    assert "plugin-leaf 2.1" in out
    assert "2: leafnet, oaknet" in out
    assert "zoo_after_fit, zoo_register_backbones" in out
    assert "error" not in out


def test_show_family_names_are_abbreviated(cli):
    code, out, _ = cli("plugins", "show", "timm")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("backbones")]
    assert f"and {len(list_models()) - MAX_NAMES:,} more: `zoo list --source timm`" in line
    item = json.loads(cli("plugins", "show", "timm", "--json")[1])
    assert item["backbones"] == len(item["names"]) == len(list_models())


def test_show_failed_plugin_prints_traceback(cli, install):
    install("bad", "def leaf():\n    raise RuntimeError('no leaf today')\nleaf()\n")
    code, out, _ = cli("plugins", "show", "bad")
    assert code == 0
    assert "status      failed" in out
    assert "error       RuntimeError: no leaf today" in out
    assert "Traceback" in out
    assert 'plugin_bad.py", line 2, in leaf' in out
    assert "hooks       none known" in out
    item = json.loads(cli("plugins", "show", "bad", "--json")[1])
    assert (item["status"], item["backbones"], item["names"]) == ("failed", 0, [])
    assert "line 2, in leaf" in item["traceback"]


def test_show_hooks_of_plugin_failed_after_import(cli, install):
    install(
        "bad",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            return [42]
        """,
    )
    item = json.loads(cli("plugins", "show", "bad", "--json")[1])
    assert (item["status"], item["hooks"]) == ("failed", ["zoo_register_backbones"])


def test_show_family_failing_on_enumeration(cli, install):
    install("fam", FAILING_FAMILY)
    code, out, _ = cli("plugins", "show", "fam", "--json")
    item = json.loads(out)
    assert (code, item["status"]) == (0, "failed")
    assert "of another time" in item["error"]


def test_show_conflicting_and_disabled_plugin(cli, install):
    install("leaf", GOOD.format(names=["leafnet"]), package="aaa-first")
    install("leaf", GOOD.format(names=["othernet"]), package="bbb-second")
    code, out, _ = cli("plugins", "show", "leaf", "--json")
    item = json.loads(out)
    assert (code, item["distribution"], item["names"]) == (0, "aaa-first", ["leafnet"])
    (other,) = item["conflicts"]
    assert (other["distribution"], other["status"]) == ("bbb-second", "conflict")
    assert "aaa-first" in other["error"]
    assert (other["backbones"], other["names"]) == (0, [])
    out = cli("plugins", "show", "leaf")[1]
    assert out.index("aaa-first 1.0") < out.index("bbb-second 1.0")
    code, out, _ = cli("plugins", "show", "leaf", "--no-plugin", "leaf")
    assert code == 0
    assert "status      off" in out


def test_show_unknown_plugin_suggests_nearest(cli):
    code, out, err = cli("plugins", "show", "tim")
    assert (code, out) == (2, "")
    assert err == "zoo: error: no plugin is named 'tim'; did you mean timm?\n"
    assert "torchvision" in cli("plugins", "show", "qqqq")[2]


def test_plugins_show_imports_no_torch():
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


def test_show_lists_options(cli, install):
    install(
        "early",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_options():
            yield zoo.PluginOption("epochs", 3, "epochs before it stops", minimum=1, maximum=99)
            yield zoo.PluginOption("metric", "loss", "what it watches", choices=("loss", "top1"))
        """,
    )
    code, out, _ = cli("plugins", "show", "early", "--json")
    assert code == 0
    assert json.loads(out)["options"] == [
        {
            "name": "epochs",
            "default": 3,
            "help": "epochs before it stops",
            "choices": [],
            "minimum": 1,
            "maximum": 99,
            "variable": "ZOO_PLUGIN_EARLY_EPOCHS",
        },
        {
            "name": "metric",
            "default": "loss",
            "help": "what it watches",
            "choices": ["loss", "top1"],
            "minimum": None,
            "maximum": None,
            "variable": "ZOO_PLUGIN_EARLY_METRIC",
        },
    ]
    _, out, _ = cli("plugins", "show", "early")
    lines = [line for line in out.splitlines() if line.startswith("option ")]
    assert lines == [
        "option      epochs, epochs before it stops"
        "  [default: 3; at least 1; at most 99; env: ZOO_PLUGIN_EARLY_EPOCHS]",
        "option      metric, what it watches"
        '  [default: "loss"; one of loss, top1; env: ZOO_PLUGIN_EARLY_METRIC]',
    ]
