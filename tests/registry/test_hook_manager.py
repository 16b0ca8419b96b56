"""pluggy's semantics, with records and failures attributed to plugins."""

import logging
import sys

import pluggy
import pytest
import torch

import zoo
from zoo.engine.run.observers import Observers
from zoo.registry.registry import load_registry

ENDED = zoo.FitEnded("a/b", {}, 1.0, "/run")
LEAF = """
import zoo

def leaf(name, **fields):
    return zoo.Backbone(
        name, "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32), **fields
    )

@zoo.hookimpl
def zoo_register_backbones():
    yield leaf("leafnet")
    yield leaf("oaknet")
"""
OBSERVER = """
import zoo

@zoo.hookimpl{options}
def zoo_after_fit(event):
    print("{name}")
    {body}
"""
WRAPPER = """
import zoo

@zoo.hookimpl({style}=True)
def zoo_after_fit(event):
    print("before")
    {before}
    results = yield
    print("after", {results})
    {after}
"""
STYLES = pytest.mark.parametrize(
    ("style", "results"), [("wrapper", "results"), ("hookwrapper", "results.get_result()")]
)


def own(name: str) -> list[str]:
    """Return the ids of a plugin's backbones, in its order."""
    return [b.id for b in load_registry().find(source=name)]


def record(name: str):
    return next(r for r in load_registry().host.records if r.name == name)


@pytest.fixture
def notify(caplog, capsys):
    """Call zoo_after_fit; return the lines that plugins printed, and the warnings."""

    def call() -> tuple[list[str], list[str]]:
        observers = Observers(load_registry().host, torch.device("cpu"))
        capsys.readouterr()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "zoo"):
            observers.notify("zoo_after_fit", ENDED)
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err.splitlines(), caplog.messages

    return call


def observer(name: str, body: str = "return None", options: str = "") -> str:
    return OBSERVER.format(name=name, body=body, options=options)


def wrapper(style: str, results: str, before: str = "pass", after: str = "return results") -> str:
    return WRAPPER.format(style=style, results=results, before=before, after=after)


def test_call_order_is_that_of_pluggy(install, notify):
    install("aa", observer("aa"))
    install("bb", observer("bb", options="(trylast=True)"))
    install("cc", observer("cc"))
    install("dd", observer("dd", options="(tryfirst=True)"))
    install("ee", observer("ee"))
    # Last registered first, except for tryfirst and trylast.
    assert notify() == (["dd", "ee", "cc", "aa", "bb"], [])


@STYLES
def test_wrapper_runs_around_all_implementations(install, notify, style, results):
    install("aa", observer("aa", "return 'one'"))
    install("bb", wrapper(style, results))
    install("cc", observer("cc", "return 'three'"))
    assert notify() == (["before", "cc", "aa", "after ['three', 'one']"], [])


@STYLES
@pytest.mark.parametrize("failure", ["raise RuntimeError('no')", "raise SystemExit(3)", "1 / 0"])
def test_failing_implementation_does_not_stop_wrapper(install, notify, style, results, failure):
    install("aa", observer("aa", "return 'one'"))
    install("bb", observer("bb", failure))
    install("cc", wrapper(style, results))
    printed, warnings = notify()
    assert printed == ["before", "bb", "aa", "after ['one']"]
    (warning,) = warnings
    assert warning.startswith("plugin 'bb' failed in zoo_after_fit: ")


@STYLES
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"before": "raise RuntimeError('no')"}, "RuntimeError: no"),
        ({"after": "raise SystemExit(3)"}, "SystemExit: 3"),
        ({"after": "yield"}, "yielded a second time"),
        ({"before": "if event: return"}, "did not yield"),
    ],
)
def test_failing_wrapper_is_failure_of_its_plugin(install, notify, style, results, broken, message):
    install("aa", observer("aa", "return 'one'"))
    install("bb", wrapper(style, results, **broken))
    install("cc", wrapper("wrapper", "results"))
    printed, warnings = notify()
    # The outer wrapper and the inner implementation run as without it.
    assert [line for line in printed if line not in ("before", "after ['one']")] == ["aa"]
    assert printed[-1] == "after ['one']"
    (warning,) = warnings
    assert warning.startswith("plugin 'bb' failed in zoo_after_fit: ")
    assert message in warning


def test_hookwrapper_forcing_exception_is_a_failure(install, notify):
    install("aa", observer("aa", "return 'one'"))
    install("bb", wrapper("hookwrapper", "1", after="results.force_exception(ValueError('no'))"))
    install("cc", wrapper("wrapper", "results"))
    printed, warnings = notify()
    assert printed[-1] == "after ['one']"
    assert warnings == ["plugin 'bb' failed in zoo_after_fit: ValueError: no"]


@STYLES
@pytest.mark.parametrize("what", ["pass", "return []", "raise RuntimeError('no')"])
def test_wrapper_cannot_swallow_keyboard_interrupt(install, style, results, what):
    source = """
        import zoo
        ended = []

        @zoo.hookimpl({style}=True)
        def zoo_after_fit(event):
            try:
                outcome = yield
                {get}
            except BaseException as error:
                ended.append(type(error).__name__)
                {what}
        """
    get = "outcome.get_result()" if style == "hookwrapper" else "pass"
    install("aa", observer("aa", "raise KeyboardInterrupt"))
    install("bb", source.format(style=style, get=get, what=what))
    with pytest.raises(KeyboardInterrupt):
        load_registry().host.notify("zoo_after_fit", ENDED)
    assert sys.modules["plugin_bb"].ended == ["KeyboardInterrupt"]


def test_repeated_failure_is_reported_once_with_count(install, caplog):
    install("bad", observer("bad", "raise RuntimeError('no')"))
    observers = Observers(load_registry().host, torch.device("cpu"))
    with caplog.at_level(logging.WARNING, "zoo"):
        for _ in range(3):
            observers.notify("zoo_after_fit", ENDED)
        observers.close()
    assert caplog.messages == [
        "plugin 'bad' failed in zoo_after_fit: RuntimeError: no",
        "plugin 'bad' failed 3 times in zoo_after_fit",
    ]


def test_nested_calls_have_separate_outcomes(install):
    nested = observer(
        "aa",
        """
    from zoo.registry.registry import load_registry
    started = zoo.FitStarted("a/b", {{}}, "/run")
    inner.extend(load_registry().host.notify("zoo_before_fit", started))
    raise RuntimeError("outer")""".format(),
    )
    install("aa", f"inner = []\n{nested}")
    install("bb", "import zoo\n\n@zoo.hookimpl\ndef zoo_before_fit(event): 1 / 0\n")
    outer = load_registry().host.notify("zoo_after_fit", ENDED)
    assert [(o.plugin, str(o.error)) for o in outer] == [("aa", "outer")]
    inner = sys.modules["plugin_aa"].inner
    assert [(o.plugin, type(o.error)) for o in inner] == [("bb", ZeroDivisionError)]


def test_hookcall_monitoring_is_called_once_per_call(install):
    install("aa", LEAF + observer("aa", "raise RuntimeError('no')").replace("import zoo", ""))
    install("bb", observer("bb", "return 2"))
    manager, seen = load_registry().host.manager, []
    undo = manager.add_hookcall_monitoring(
        lambda hook, made, given: seen.append((hook, [m.plugin_name for m in made], dict(given))),
        lambda result, hook, made, given: seen.append(result.get_result()),
    )
    load_registry().host.notify("zoo_after_fit", ENDED)
    undo()
    load_registry().host.notify("zoo_after_fit", ENDED)
    assert seen == [("zoo_after_fit", ["aa", "bb"], {"event": ENDED, "options": {}}), [2]]


@STYLES
def test_wrapper_can_modify_add_and_remove_records(install, style, results):
    body = {
        "wrapper": "return changed",
        "hookwrapper": "results.force_result(changed)",
    }[style]
    install("leaf", LEAF)
    install(
        "wrap",
        LEAF.replace("oaknet", "elmnet")
        + f"""
from dataclasses import replace

@zoo.hookimpl({style}=True, specname="zoo_register_backbones")
def around():
    results = yield
    changed = [[leaf("ashnet")]]
    for items in {results}:
        others = [item for item in items if getattr(item, "name", "") != "oaknet"]
        changed.append(
            [replace(item, params=7) if item.source == "leaf" else item for item in others]
        )
    {body}
""",
    )
    assert own("leaf") == ["leaf/leafnet"]
    assert (zoo.get("leaf/leafnet").params, zoo.get("leaf/leafnet").plugin) == (7, "leaf")
    assert zoo.get("leaf/leafnet").origin == "plugin leaf (plugin-leaf 1.0)"
    assert own("wrap") == ["wrap/ashnet", "wrap/leafnet", "wrap/elmnet"]
    assert zoo.get("ashnet").origin == "plugin wrap (plugin-wrap 1.0)"
    assert len(own("torchvision")) == 86
    assert zoo.get("timm/resnet18").source == "timm"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield\n    raise RuntimeError('no leaf')", "no leaf"),
        ("raise SystemExit(2)\n    yield", "SystemExit: 2"),
        ("lists = yield\n    lists[0].append(7)\n    return lists", "registered int 7"),
        ("lists = yield\n    lists[0].clear()", "returned None, not an iterable"),
        ("lists = yield\n    return lists[0]", "not an iterable"),
        ("lists = yield\n    return [*lists, lists[-1]]", "'alexnet' twice"),
        (
            "lists = yield\n    return [*lists, [leaf('ashnet', source='moon')]]",
            "for 'moon', which is no plugin",
        ),
    ],
)
def test_failing_wrapper_preserves_records_of_other_plugins(install, caplog, body, message):
    install("leaf", LEAF)
    tail = LEAF.replace("zoo_register_backbones():", "unused():").replace("@zoo.hookimpl\n", "")
    install(
        "wrap",
        f"{tail}\n@zoo.hookimpl(wrapper=True)\ndef zoo_register_backbones():\n    {body}\n",
    )
    with caplog.at_level(logging.WARNING, "zoo"):
        assert own("leaf") == ["leaf/leafnet", "leaf/oaknet"]
    assert len(own("torchvision")) == 86
    assert record("wrap").status == "failed"
    assert message in record("wrap").error
    assert [m for m in caplog.messages if "'wrap'" in m] == caplog.messages
    assert len(caplog.messages) == 1


def test_wrapper_receives_records_of_working_plugins_only(install):
    install("bad", "import zoo\n\n@zoo.hookimpl\ndef zoo_register_backbones():\n    yield 42\n")
    install(
        "exits", "import zoo\n\n@zoo.hookimpl\ndef zoo_register_backbones(): raise SystemExit\n"
    )
    install("leaf", LEAF)
    install(
        "wrap",
        """
        import zoo
        seen = []

        @zoo.hookimpl(wrapper=True)
        def zoo_register_backbones():
            lists = yield
            seen.extend({item.source for item in items} for items in lists)
            return lists
        """,
    )
    assert own("leaf") == ["leaf/leafnet", "leaf/oaknet"]
    seen = sys.modules["plugin_wrap"].seen
    assert seen[0] == {"leaf"}
    assert {"torchvision"} in seen
    assert not {"bad", "exits"} & set().union(*seen)
    assert [record(name).status for name in ("bad", "exits", "wrap")] == ["failed", "failed", "ok"]


def test_failed_plugin_is_unregistered_from_all_hooks(install, notify):
    source = "import zoo\n\n@zoo.hookimpl\ndef zoo_register_backbones():\n    yield 42\n"
    install("bad", source + observer("bad"))
    assert notify() == ([], [])
    assert record("bad").hooks == ("zoo_after_fit", "zoo_register_backbones")


def test_hookimpl_options_optionalhook_and_historic(install):
    marks = "optionalhook=True"
    install("newer", f"import zoo\n\n@zoo.hookimpl({marks})\ndef zoo_on_moonrise(moon): ...\n")
    install("wrong", "import zoo\n\n@zoo.hookimpl(historic=True)\ndef zoo_after_fit(event): ...\n")
    assert record("newer").status == "ok"
    assert "zoo_on_moonrise" in record("newer").hooks
    assert record("wrong").status == "failed"
    assert "historic" in record("wrong").error


def test_historic_hook_is_replayed_to_late_plugin(install):
    install(
        "leaf",
        "import zoo\nseen = []\n\n@zoo.hookimpl(optionalhook=True)\n"
        "def zoo_on_moonrise(moon): seen.append(moon)\n",
    )
    manager = load_registry().host.manager
    spec = type("Specs", (), {})

    @pluggy.HookspecMarker("zoo")(historic=True)
    def zoo_on_moonrise(moon):
        """Observe the moon."""

    spec.zoo_on_moonrise = staticmethod(zoo_on_moonrise)
    manager.add_hookspecs(spec)
    manager.hook.zoo_on_moonrise.call_historic(kwargs={"moon": 1})
    late = type(
        "Late",
        (),
        {
            "zoo_on_moonrise": staticmethod(
                zoo.hookimpl(lambda moon: sys.modules["plugin_leaf"].seen.append(-moon))
            )
        },
    )
    manager.register(late, "late")
    assert sys.modules["plugin_leaf"].seen == [1, -1]


def test_strict_raises_error_of_wrapper(install, monkeypatch):
    install(
        "wrap",
        "import zoo\n\n@zoo.hookimpl(wrapper=True)\n"
        "def zoo_register_backbones():\n    yield\n    raise RuntimeError('no leaf')\n",
    )
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(zoo.BrokenPlugin, match=r"'wrap'.*no leaf"):
        load_registry()
