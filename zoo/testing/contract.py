"""The conformance suites as pytest classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.testing.findings import EXCEPTED, FAILED, NOT_APPLICABLE, NOT_TRIED, Check, Finding
from zoo.testing.suite import SUITE, run_check
from zoo.testing.task_suite import TASK_SUITE, run_task_check

if TYPE_CHECKING:
    from zoo.testing.subject import Subject
    from zoo.testing.task_subject import TaskSubject


class BackboneContract:
    """Pytest class with one test per check of a backbone.

    Example:
        import zoo.testing

        class TestLeafnet(zoo.testing.BackboneContract):
            backbone = "leafnet"

    A check that does not apply, such as that of auxiliary heads on a network without one, or that
    cannot be tried is skipped; one that the description lists in `exceptions` is an expected
    failure.
    """

    backbone: ClassVar[str] = ""
    _subjects: ClassVar[dict[tuple[int, str], Subject]] = {}

    def subject(self) -> Subject:
        """Return the backbone under test, shared by all tests of a class.

        Raises:
            UnknownBackbone: no such backbone is registered.
        """
        from zoo.registry.registry import load_registry
        from zoo.testing.fresh import in_fresh_process
        from zoo.testing.subject import Subject

        assert self.backbone, f"{type(self).__name__} names no backbone"
        registry = load_registry()
        key = id(registry), self.backbone
        if key not in self._subjects:
            self._subjects.clear()  # release the networks of the previous class
            backbone = registry.get(self.backbone)
            self._subjects[key] = Subject(backbone, registry, in_fresh_process())
        return self._subjects[key]


class TaskContract:
    """Pytest class with one test per check of a task.

    Example:
        import zoo.testing

        class TestLeafCounting(zoo.testing.TaskContract):
            task = "leaf-counting"
            backbone = "leafnet/leafnet_8"

    `backbone` defaults to the smallest one of the task.
    """

    task: ClassVar[str] = ""
    backbone: ClassVar[str | None] = None
    _subjects: ClassVar[dict[tuple[int, str, str | None], TaskSubject]] = {}

    def subject(self) -> TaskSubject:
        """Return the task under test, shared by all tests of a class.

        Raises:
            UsageError: no such task is registered, or no backbone of it.
        """
        from zoo.registry.registry import load_registry
        from zoo.testing.task_suite import task_subject

        assert self.task, f"{type(self).__name__} names no task"
        registry = load_registry()
        key = id(registry), self.task, self.backbone
        if key not in self._subjects:
            self._subjects.clear()
            self._subjects[key] = task_subject(self.task, registry, self.backbone)
        return self._subjects[key]


def _add_test(owner: type, check: Check, run: Callable[[Any, Check], Finding]) -> None:
    """Add the test of a check to a contract class."""

    def test(self: Any) -> None:
        import pytest

        __tracebackhide__ = True
        finding = run(self.subject(), check)
        if finding.status in (NOT_APPLICABLE, NOT_TRIED):
            pytest.skip(f"{finding.status}: {finding.detail}")
        if finding.status == EXCEPTED:
            pytest.xfail(finding.detail)
        if finding.status == FAILED:
            pytest.fail("\n".join(filter(None, (str(finding), finding.trace))), pytrace=False)

    test.__name__ = f"test_{check.name}"
    test.__qualname__ = f"{owner.__name__}.{test.__name__}"
    test.__doc__ = f"{check.requirement[0].upper()}{check.requirement[1:]}."
    setattr(owner, test.__name__, test)


for _check in SUITE:
    _add_test(BackboneContract, _check, run_check)
for _check in TASK_SUITE:
    _add_test(TaskContract, _check, run_task_check)
