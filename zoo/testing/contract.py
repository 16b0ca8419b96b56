"""The suites as test classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.testing.findings import ABSENT, BROKEN, EXCEPTED, Check, Finding
from zoo.testing.suite import SUITE, hold
from zoo.testing.task_suite import TASK_SUITE, check_task

if TYPE_CHECKING:
    from zoo.testing.subject import Subject
    from zoo.testing.task_subject import TaskSubject


class BackboneContract:
    """Every promise that zoo makes of a backbone, as a test for each; for pytest.

    Example:
        import zoo.testing

        class TestLeafnet(zoo.testing.BackboneContract):
            backbone = "leafnet"

    A promise that has nothing to be about, such as an auxiliary head's on a network without one,
    is skipped; one that the description excepts is an expected failure with its reason.
    """

    backbone: ClassVar[str] = ""
    _subjects: ClassVar[dict[tuple[int, str], Subject]] = {}

    def subject(self) -> Subject:
        """Return the backbone on trial, the same for all tests of a class.

        Raises:
            UnknownBackbone: the registry has none of that name.
        """
        from zoo.registry.registry import load_registry
        from zoo.testing.fresh import in_fresh_process
        from zoo.testing.subject import Subject

        assert self.backbone, f"{type(self).__name__} names no backbone"
        registry = load_registry()
        key = id(registry), self.backbone
        if key not in self._subjects:
            self._subjects.clear()  # of another class, whose networks are of no more use
            found = registry.get(self.backbone)
            self._subjects[key] = Subject(found, registry, in_fresh_process())
        return self._subjects[key]


class TaskContract:
    """Every promise that zoo makes of a task, as a test for each; for pytest.

    Example:
        import zoo.testing

        class TestLeafCounting(zoo.testing.TaskContract):
            task = "leaf-counting"
            backbone = "leafnet/leafnet_8"

    Without a backbone it is tried on the smallest one of the task.
    """

    task: ClassVar[str] = ""
    backbone: ClassVar[str | None] = None
    _subjects: ClassVar[dict[tuple[int, str, str | None], TaskSubject]] = {}

    def subject(self) -> TaskSubject:
        """Return the task on trial, the same for all tests of a class.

        Raises:
            UsageError: the registry has none of that name, or no backbone of it.
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


def _test(owner: type, check: Check, attempt: Callable[[Any, Check], Finding]) -> None:
    """Give a contract the test of a check."""

    def test(self: Any) -> None:
        import pytest

        __tracebackhide__ = True
        found = attempt(self.subject(), check)
        if found.status == ABSENT:
            pytest.skip(found.detail)
        if found.status == EXCEPTED:
            pytest.xfail(found.detail)
        if found.status == BROKEN:
            pytest.fail("\n".join(filter(None, (str(found), found.trace))), pytrace=False)

    test.__name__ = f"test_{check.name}"
    test.__qualname__ = f"{owner.__name__}.{test.__name__}"
    test.__doc__ = f"{check.promise[0].upper()}{check.promise[1:]}."
    setattr(owner, test.__name__, test)


for _each in SUITE:
    _test(BackboneContract, _each, hold)
for _each in TASK_SUITE:
    _test(TaskContract, _each, check_task)
