"""All of timm as one family; timm is imported only to enumerate it or to build a network."""

from collections.abc import Iterator

from zoo.hookspecs import hookimpl
from zoo.spec import Family


@hookimpl
def zoo_register_backbones() -> Iterator[Family]:
    """Register timm's architectures, enumerated once per installed version of timm."""
    yield Family(distribution="timm", catalogue="zoo.builtin.timm_catalogue:enumerate_backbones")
