"""The suite as a test class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.testing.findings import ABSENT, BROKEN, EXCEPTED, Check
from zoo.testing.suite import SUITE, hold

if TYPE_CHECKING:
    from zoo.testing.subject import Subject


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


def _test(check: Check) -> Callable[[BackboneContract], None]:
    def test(self: Any) -> None:
        import pytest

        __tracebackhide__ = True
        found = hold(self.subject(), check)
        if found.status == ABSENT:
            pytest.skip(found.detail)
        if found.status == EXCEPTED:
            pytest.xfail(found.detail)
        if found.status == BROKEN:
            pytest.fail("\n".join(filter(None, (str(found), found.trace))), pytrace=False)

    test.__name__ = f"test_{check.name}"
    test.__qualname__ = f"BackboneContract.{test.__name__}"
    test.__doc__ = f"{check.promise[0].upper()}{check.promise[1:]}."
    return test


for _check in SUITE:
    setattr(BackboneContract, f"test_{_check.name}", _test(_check))
