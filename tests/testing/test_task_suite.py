"""The suite of tasks: a sound task keeps every promise, and each fault is found by its check."""

import json

import pytest

import zoo
from tests.testing.task_faults import TASK_FAULTS
from tests.testing.test_contract import run_tests
from zoo.registry.registry import load_registry
from zoo.testing.findings import ABSENT, KEPT
from zoo.testing.task_suite import TASK_SUITE, check_all, check_task, task_subject

pytestmark = pytest.mark.usefixtures("faulty_tasks")
CHECKS = {check.name: check for check in TASK_SUITE}


def subject(task, backbone="tasks_of/plain"):
    return task_subject(task, load_registry(), backbone)


@pytest.mark.parametrize(
    ("task", "backbone"), [("sound", None), ("image-classification", "tasks_of/plain")]
)
def test_a_sound_task_keeps_every_promise(task, backbone):
    findings = list(check_all(subject(task, backbone)))
    assert {found.check: found.detail for found in findings if found.status != KEPT} == {}
    assert [found.check for found in findings] == list(CHECKS)
    assert {found.backbone for found in findings} == {task}


@pytest.mark.slow
def test_segmentation_keeps_every_promise(zoo_isolated):
    zoo_isolated.register_builtins("torchvision")
    findings = list(check_all(subject("semantic-segmentation", "lraspp_mobilenet_v3_large")))
    assert {found.check: found.detail for found in findings if found.status != KEPT} == {}


@pytest.mark.parametrize("name", TASK_FAULTS)
def test_a_fault_is_found_by_the_check_for_it(name):
    broken, seen = TASK_FAULTS[name]
    found = check_task(subject(name), CHECKS[broken])
    assert found.broken
    assert seen in found.detail
    assert "breaks" in str(found)


def test_every_check_can_fail():
    assert {broken for broken, _ in TASK_FAULTS.values()} == CHECKS.keys()


def test_a_network_that_does_more_after_its_head_is_no_fault_of_the_task():
    found = check_task(subject("sound", "tasks_of/pooled"), CHECKS["combines_heads_as_the_network"])
    assert (found.status, found.detail) == (
        ABSENT,
        "on tasks_of/pooled the network does more after its head",
    )


def test_a_task_without_a_backbone_cannot_be_tried():
    with pytest.raises(zoo.UsageError, match="there is no backbone of the task 'halved'"):
        task_subject("halved", load_registry())


def test_a_class_of_two_lines_is_enough(tmp_path):
    lines = [
        "import zoo.testing",
        "class TestSound(zoo.testing.TaskContract):",
        "    task = 'sound'",
        "class TestSummed(zoo.testing.TaskContract):",
        "    task, backbone = 'summed', 'tasks_of/plain'",
    ]
    done = run_tests(tmp_path, lines)
    assert f"1 failed, {2 * len(TASK_SUITE) - 1} passed" in done.stdout, done.stdout
    assert "summed breaks 'loss_is_a_mean' (the loss is a mean over as many" in done.stdout


def test_plugins_check_tries_the_tasks_of_a_plugin(cli, install):
    install(
        "pairs",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_tasks():
            yield zoo.Task("pairs", "two numbers", "plugin_pairs:Pairs")

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("net", "faulty_tasks:build", (zoo.Head("fc"),),
                               zoo.Preprocess(16, 16), task="pairs")

        def __getattr__(name):
            if name != "Pairs":
                raise AttributeError(name)
            import faulty_tasks
            return type("Pairs", (faulty_tasks.Backwards,), {"name": "pairs"})
        """,
    )
    code, out, _ = cli("plugins", "check", "pairs")
    lines = out.splitlines()
    assert code == zoo.ExitCode.BROKEN
    assert "task pairs: 14 kept, 1 broken" in lines
    assert lines[-2:] == ["1 of 1 backbones conform", "0 of 1 tasks conform"]
    (described,) = [
        d for d in json.loads(cli("plugins", "check", "pairs", "--json")[1]) if "task" in d
    ]
    assert (described["task"], described["conforms"], len(described["checks"])) == (
        "pairs",
        False,
        15,
    )
    assert cli("plugins", "check", "pairs", "--backbone", "net")[0] == zoo.ExitCode.DONE
