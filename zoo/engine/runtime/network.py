"""A network on its device: one forward pass for training, evaluation and prediction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.transforms import normalize
from zoo.engine.runtime.device import as_environment_error, autocast
from zoo.engine.runtime.memory_format import (
    MEMORY_FORMATS,
    contiguous_inputs,
    contiguous_layers,
    resolve_memory_format,
)
from zoo.errors import BrokenBackbone
from zoo.locks import Lock
from zoo.models.freeze import inference_mode_of
from zoo.models.heads import resolve_head
from zoo.models.plugin_errors import plugin_errors
from zoo.models.provenance import ATTRIBUTE, Provenance
from zoo.spec import Head, Preprocess
from zoo.tasks.base import BaseTask, Outputs


def _compute_alone() -> None:
    """Compute in one thread in a forked process, where OpenMP would wait for its parent's."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_alone)


class Network:
    """A module with the device, precision and preprocess of its forward pass.

    Args:
        module: the network; moved to the device.
        heads: of its backbone.
        preprocess: with the mean and std to apply.
        device: to compute on.
        precision: `fp32`, or `bf16` for autocast; heads compute in float32 in both.
        task: reads its output.
        automatic: whether float32 may replace bf16 where the network fails in it.
        memory_format: `contiguous`, `channels_last`, or `auto` by the device.

    Attributes:
        contiguous: names of layers that are contiguous in either format.
        forwards: number of samples passed through it; trial passes are subtracted later.
        engines: of `zoo.engine.backends`, by name and batch size; not pickled.
        lock: of the hooks on the module, which every thread that runs it would call.
    """

    def __init__(
        self,
        module: nn.Module,
        heads: Sequence[Head],
        preprocess: Preprocess,
        device: torch.device,
        precision: str,
        task: BaseTask,
        automatic: bool = False,
        memory_format: str = "auto",
    ) -> None:
        self.module = module.to(device)
        self.memory_format = MEMORY_FORMATS[resolve_memory_format(memory_format, device)[0]]
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.ndim == 4:  # only image tensors have channels to put last
                tensor.data = tensor.data.contiguous(memory_format=self.memory_format)
        layers = contiguous_layers(module, device)
        for layer in layers.values():  # `contiguous` keeps any strides of 1x1 weights
            layer.weight.data = layer.weight.data.clone(memory_format=torch.contiguous_format)
        self.contiguous, self._contiguous = tuple(layers), tuple(layers.values())
        self.heads = tuple(heads)
        self.paths = tuple(resolve_head(module, head.path) for head in heads)
        self.preprocess = preprocess
        self.device = device
        self.precision = precision
        self.automatic = automatic
        self.task = task
        known = module.__dict__.get(ATTRIBUTE)
        self.previous_outputs = known.previous_classes if isinstance(known, Provenance) else None
        self.forwards = 0
        self.engines: dict[str, Any] = {}
        self.lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "engines": {}}

    def forward(
        self,
        images: Tensor,
        training: bool = False,
        pad_to: int = 0,
        through: nn.Module | None = None,
    ) -> Outputs:
        """Run a batch through the network.

        Args:
            images: `[images, channels, height, width]`: uint8, or floats that are normalized.
            training: whether auxiliary heads contribute to the loss; module modes are not changed.
            pad_to: pad a smaller batch with blank images to this size, and drop their outputs,
                since rounding in a kernel depends on the batch size.
            through: a wrapper to call in place of the module, such as torch's
                `DistributedDataParallel`.

        Returns:
            Outputs on the network's device, differentiable where gradients are enabled.

        Raises:
            BrokenBackbone: the network fails, or its task cannot read its output.
        """
        count = len(images)
        self.forwards += count
        if count < pad_to:
            images = torch.cat([images, images.new_zeros(pad_to - count, *images.shape[1:])])
        on_device = images.to(self.device, non_blocking=True)
        if on_device.dtype == torch.uint8:
            on_device = normalize(on_device, self.preprocess)
        inputs = on_device.contiguous(memory_format=self.memory_format)
        alone = len(inputs) == 1 and self.module.training
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._guarded(inputs))
            stack.enter_context(self.computing())
            stack.enter_context(contiguous_inputs(self._contiguous))
            stack.enter_context(_one_value(self.module, alone))
            output = (through or self.module)(inputs)
        outputs = self.task.read_output(output, self.heads, training, self.previous_outputs)
        if len(outputs.main) != len(inputs):
            message = f"the network returned {len(outputs.main)} outputs for {len(inputs)} images"
            raise BrokenBackbone(message, "its output must have a row for each image, in order")
        return outputs if count >= pad_to else outputs.narrow(count)

    def leave_bf16(self) -> bool:
        """Compute in fp32 from now on if bf16 was chosen automatically; return whether it was."""
        if self.precision == "fp32" or not self.automatic:
            return False
        self.precision = "fp32"
        return True

    def fall_back(self) -> str | None:
        """Switch to fp32 if an automatic bf16 fails on two blank images; return why.

        Not every operation has a bf16 kernel on every device.

        Returns:
            Why it failed; None where it did not.
        """
        if self.precision == "fp32" or not self.automatic:
            return None
        size = self.preprocess.channels, self.preprocess.height, self.preprocess.width
        try:
            with inference_mode_of(self.module):
                self.forward(torch.zeros((2, *size), dtype=torch.uint8))
        except BrokenBackbone as error:
            self.leave_bf16()
            return f"the network fails in bf16: {error.message}"
        finally:
            self.forwards = 0
        return None

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in the network's precision in the block, in its heads in float32.

        bfloat16 has an 8-bit significand: large outputs tie and small head updates round to zero.
        One thread at a time: hooks on a head are called by every thread that runs it.
        """
        with self.lock, contextlib.ExitStack() as stack:
            if self.precision != "fp32":
                stack.enter_context(autocast(self.device, self.precision))
                for path in self.paths:
                    stack.enter_context(_in_float32(self.module.get_submodule(path), self.device))
            yield

    @contextlib.contextmanager
    def _guarded(self, inputs: Tensor) -> Iterator[None]:
        try:
            with plugin_errors(f"the network fails on a batch of {tuple(inputs.shape)}"):
                yield
        except BrokenBackbone as error:
            # torch raises the death of a worker from a signal handler, anywhere in this process.
            cause = error.__cause__
            if cause and (problem := as_environment_error(cause, "the network")):
                raise problem from error
            raise


@contextlib.contextmanager
def _one_value(module: nn.Module, alone: bool) -> Iterator[None]:
    """Have batch norm that sees a single value of each channel use its running statistics.

    One value has no variance, and torch refuses it: what is pooled of a batch of one is that.

    Args:
        module: the network.
        alone: whether it is to train on a batch of one; else nothing is done.
    """
    switched: list[nn.Module] = []

    def enter(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            switched.append(norm.eval())

    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    handles = [norm.register_forward_pre_hook(enter) for norm in norms if alone]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm in switched:
            norm.train()


@contextlib.contextmanager
def _in_float32(head: nn.Module, device: torch.device) -> Iterator[None]:
    """Compute in float32 in a head, inside of an autocast block."""
    entered: list[torch.autocast] = []

    def enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        entered.append(torch.autocast(device.type, enabled=False))
        entered[-1].__enter__()
        return tuple(map(_float, inputs)), {name: _float(each) for name, each in named.items()}

    def leave(*_: object) -> None:
        # Also called where the pre-hook failed.
        if entered:
            entered.pop().__exit__(None, None, None)

    handles = [
        head.register_forward_pre_hook(enter, with_kwargs=True),
        head.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
