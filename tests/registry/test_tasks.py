"""Tasks registered by plugins, and backbones of unregistered tasks."""

import json
import logging
import subprocess
import sys

import pytest

import zoo
from zoo.registry.registry import load_registry
from zoo.testing.fixtures import reset_caches

BUILT_IN = ("image-classification", "semantic-segmentation")

TASKS = """
    import zoo

    @zoo.hookimpl
    def zoo_register_tasks():
        for name in {names!r}:
            yield zoo.Task(name, "the number of leaves", target="leafnet.counting:Leaves")

    @zoo.hookimpl
    def zoo_register_backbones():
        yield zoo.Backbone(
            "{backbone}", "torch.nn:Identity", (zoo.Head("fc"),), zoo.Preprocess(size=32),
            task="{task}",
        )
"""


def plugin(*names, backbone="leafnet", task="leaf-counting") -> str:
    return TASKS.format(names=names, backbone=backbone, task=task)


def record(name: str):
    return next(r for r in load_registry().host.records if r.name == name)


def test_builtin_task_is_registered():
    task = load_registry().task("image-classification")
    assert (task.source, task.plugin) == ("tasks", "tasks")
    assert task.origin == f"plugin tasks (zoo-registry {zoo.__version__})"
    assert list(load_registry().tasks) == [*BUILT_IN]


def test_plugin_registers_tasks(install):
    install("leaf", plugin("leaf-counting", "leaf-area"))
    registry = load_registry()
    assert list(registry.tasks) == [*BUILT_IN, "leaf-counting", "leaf-area"]
    task = registry.task("leaf-counting")
    assert (task.source, task.origin) == ("leaf", "plugin leaf (plugin-leaf 1.0)")
    assert task.target == "leafnet.counting:Leaves"
    with pytest.raises(AttributeError):
        task.target = "other:Leaves"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (plugin("twin", "twin"), "'twin' twice"),
        (plugin("Leaf Counting"), "'Leaf Counting' is not a task name"),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_register_tasks(): return [42]\n",
            "int 42, not a Task",
        ),
        ("import zoo\n@zoo.hookimpl\ndef zoo_register_tasks(): pass\n", "returned None"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_register_tasks(): raise SystemExit\n", "SystemExit"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_register_task(): pass\n", "zoo_register_tasks?"),
    ],
)
def test_invalid_task_fails_its_whole_plugin(install, caplog, source, message):
    install("bad", source)
    install("leaf", plugin("leaf-counting"))
    with caplog.at_level(logging.WARNING, "zoo"):
        assert list(load_registry().tasks) == [*BUILT_IN, "leaf-counting"]
    assert record("bad").status == "failed"
    assert (message in record("bad").error, record("bad").backbones) == (True, ())
    assert len(caplog.messages) == 1


def test_task_name_belongs_to_first_plugin(install):
    install("aaa", plugin("leaf-counting"))
    install("bbb", plugin("leaf-counting", "leaf-area"))
    assert load_registry().task("leaf-counting").source == "aaa"
    assert "leaf-area" not in load_registry().tasks
    assert record("bbb").status == "failed"
    assert record("bbb").error == (
        "it registers the task 'leaf-counting', which is that of plugin aaa (plugin-aaa 1.0)"
    )
    with pytest.raises(zoo.BrokenPlugin, match="the task 'leaf-counting'"):
        zoo.get("bbb/leafnet")
    assert load_registry(["aaa"]).task("leaf-counting").source == "bbb"


def test_builtin_task_name_is_reserved(install):
    install("aaa", plugin("image-classification"))
    assert load_registry().task("image-classification").source == "tasks"
    assert "that of plugin tasks" in record("aaa").error


def test_failed_plugin_reserves_no_task_name(install):
    junk = "\n    @zoo.hookimpl\n    def zoo_register_backbones(): return 42\n"
    tasks, _, _ = plugin("leaf-counting").rpartition("    @zoo.hookimpl")
    install("aaa", tasks + junk)
    install("bbb", plugin("leaf-counting"))
    assert record("aaa").status == "failed"
    assert load_registry().task("leaf-counting").source == "bbb"


def test_wrapper_can_add_tasks(install):
    install("leaf", plugin("leaf-counting"))
    install(
        "wrap",
        """
        import zoo

        @zoo.hookimpl(wrapper=True)
        def zoo_register_tasks():
            lists = yield
            return [*lists, [zoo.Task("leaf-area", "the area of leaves", "wrap.area:Area")]]
        """,
    )
    assert [(t.name, t.source) for t in load_registry().tasks.values()] == [
        *((name, "tasks") for name in BUILT_IN),
        ("leaf-counting", "leaf"),
        ("leaf-area", "wrap"),
    ]


def test_unknown_task_error_is_one_line(install):
    install("leaf", plugin("leaf-counting"))
    install("bad", "raise RuntimeError")
    with pytest.raises(zoo.UsageError) as caught:
        load_registry(["timm"]).task("depth")
    message = str(caught.value)
    assert message.startswith("no plugin registers the task 'depth' ")
    assert "switched off: timm, report, regression, tensorboard; failed: bad" in message
    assert "image-classification by plugin tasks (zoo-registry" in message
    assert "leaf-counting by plugin leaf (plugin-leaf 1.0)" in message
    assert "\n" not in message


@pytest.mark.slow
def test_backbone_of_unknown_task_is_listed_not_trained(install, zoo_process, tmp_path):
    install("leaf", plugin(task="leaf-counting"))
    listed = json.loads(zoo_process("list", "--task", "leaf-counting", "--json").stdout)
    assert [(b["id"], b["task"]) for b in listed] == [("leaf/leafnet", "leaf-counting")]
    assert "leaf/leafnet" in zoo_process("list", "leafnet").stdout
    before = {path.name for path in tmp_path.iterdir()}
    for dry in ((), ("--dry-run",)):
        done = zoo_process("finetune", "leafnet", "--weights", "none", *dry)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("zoo: error: no plugin registers the task 'leaf-counting'")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_error_without_builtin_tasks_names_switched_off_plugin(cli, tmp_path):
    code, _, err = cli("finetune", "lite0", "--weights", "none", "--no-plugin", "tasks")
    assert (code, err.count("\n")) == (2, 1)
    assert "the task 'image-classification' (plugins switched off: tasks" in err
    assert not (tmp_path / "runs").exists()
    assert cli("list", "lite0", "--no-plugin", "tasks")[0] == 0


def test_plugins_command_lists_tasks(cli, install):
    install("leaf", plugin("leaf-counting", "leaf-area"))
    described = {p["name"]: p for p in json.loads(cli("plugins", "--json")[1])}
    assert described["leaf"]["tasks"] == ["leaf-counting", "leaf-area"]
    assert described["tasks"]["tasks"] == [*BUILT_IN]
    assert (described["tasks"]["backbones"], described["timm"]["tasks"]) == (0, [])
    reset_caches()
    (row,) = (line for line in cli("plugins")[1].splitlines() if line.startswith("leaf "))
    assert "leaf-counting, leaf-area" in row
    shown = cli("plugins", "show", "tasks")[1].splitlines()
    assert "tasks       image-classification, semantic-segmentation" in shown
    assert "hooks       zoo_register_tasks" in shown
    assert "backbones   0" in shown
    assert not [line for line in cli("plugins", "show", "timm")[1].splitlines() if "tasks" in line]


def test_task_lookup_imports_no_torch():
    probe = (
        "import sys; from zoo.registry.registry import load_registry\n"
        "load_registry().task('image-classification')\n"
        "assert not {'torch', 'torchvision', 'timm', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
