"""All of timm, as one family; timm itself is imported only to enumerate it or to build from it."""

from collections.abc import Iterator

from zoo.hookspecs import hookimpl
from zoo.spec import Family


@hookimpl
def zoo_register_backbones() -> Iterator[Family]:
    """Register timm's architectures, enumerated once per installed version."""
    yield Family(distribution="timm", catalogue="zoo.builtin.timm_catalogue:enumerate_backbones")
