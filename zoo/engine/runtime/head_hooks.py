"""Forward hooks that capture the inputs and outputs of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


def first_input(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """Return the first argument of a module, which may be given by name."""
    first: Tensor = next(iter((*inputs, *named.values())))
    return first


class HeadHooks:
    """Captures the input and the output of each head while the network runs.

    Args:
        module: the network.
        paths: module paths of the heads.

    Attributes:
        inputs: of each head that ran, by path; detached.
        outputs: of each head that ran, by path; detached.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        heads = [(path, module.get_submodule(path)) for path in paths]
        self.handles = [
            handle
            for path, head in heads
            for handle in (
                head.register_forward_pre_hook(self._capture_input(path), with_kwargs=True),
                head.register_forward_hook(self._capture_output(path)),
            )
        ]

    def _capture_input(self, path: str) -> Callable[..., None]:
        def capture(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.inputs[path] = first_input(inputs, named).detach()

        return capture

    def _capture_output(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def capture(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.outputs[path] = output.detach()

        return capture

    def __enter__(self) -> HeadHooks:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()
