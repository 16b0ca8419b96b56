"""The task suite: a conforming task passes, and each fault fails its check."""

import json

import pytest

import zoo
from tests.testing.task_faults import TASK_FAULTS
from tests.testing.test_contract import run_tests
from zoo.registry.registry import load_registry
from zoo.testing.findings import NOT_APPLICABLE, PASSED
from zoo.testing.task_suite import TASK_SUITE, run_task_check, run_task_checks, task_subject

pytestmark = pytest.mark.usefixtures("faulty_tasks")
CHECKS = {check.name: check for check in TASK_SUITE}


def subject(task, backbone="tasks_of/plain"):
    return task_subject(task, load_registry(), backbone)


@pytest.mark.parametrize(
    ("task", "backbone"), [("sound", None), ("image-classification", "tasks_of/plain")]
)
def test_conforming_task_passes_every_check(task, backbone):
    findings = list(run_task_checks(subject(task, backbone)))
    assert {f.check: f.detail for f in findings if f.status != PASSED} == {}
    assert [f.check for f in findings] == list(CHECKS)
    assert {f.backbone for f in findings} == {task}


@pytest.mark.slow
def test_segmentation_task_passes_every_check(zoo_isolated):
    zoo_isolated.register_builtins("torchvision")
    findings = list(run_task_checks(subject("semantic-segmentation", "lraspp_mobilenet_v3_large")))
    assert {f.check: f.detail for f in findings if f.status != PASSED} == {}


@pytest.mark.parametrize("name", TASK_FAULTS)
def test_fault_fails_its_check(name):
    failing, detail = TASK_FAULTS[name]
    finding = run_task_check(subject(name), CHECKS[failing])
    assert finding.failed
    assert detail in finding.detail
    assert str(finding).startswith(f"{name} fails {failing!r} (")


def test_every_check_has_a_fault():
    assert {failing for failing, _ in TASK_FAULTS.values()} == CHECKS.keys()


def test_layers_after_head_skip_combine_heads():
    check = CHECKS["combines_heads_as_the_network"]
    finding = run_task_check(subject("sound", "tasks_of/pooled"), check)
    assert (finding.status, finding.detail) == (
        NOT_APPLICABLE,
        "on tasks_of/pooled the network does more after its head",
    )


def test_task_without_backbone_is_usage_error():
    with pytest.raises(zoo.UsageError, match="there is no backbone of the task 'halved'"):
        task_subject("halved", load_registry())


def test_task_contract_runs_every_check(tmp_path):
    lines = [
        "import zoo.testing",
        "class TestSound(zoo.testing.TaskContract):",
        "    task = 'sound'",
        "class TestSummed(zoo.testing.TaskContract):",
        "    task, backbone = 'summed', 'tasks_of/plain'",
    ]
    done = run_tests(tmp_path, lines)
    assert f"1 failed, {2 * len(TASK_SUITE) - 1} passed" in done.stdout, done.stdout
    assert "summed fails 'loss_is_a_mean' (the loss is a mean over `count`" in done.stdout


@pytest.mark.slow
def test_plugins_check_includes_tasks_of_plugin(cli, install):
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
    assert "task pairs: 14 passed, 1 failed" in lines
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
