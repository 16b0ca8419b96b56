"""Where a network looks: maps of what each place of an image adds to an output.

The last spatial map before the main head is taken from the network as it runs, by its shape:
channels first or last, or tokens, of which those before the image's belong to no place. Its maps
are HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891): activation times gradient, summed over
channels, of which the positive part is kept. For a linear head on pooled features that is the class
activation map of Zhou et al. (2016), and Grad-CAM.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident

import torch
from torch import Tensor, nn

from zoo.engine.runtime.network import Network
from zoo.errors import UsageError
from zoo.models.freeze import inference_mode_of

# Class, distillation and register tokens.
MAX_PREFIX = 16
# Of the two strides of a map: without padding, the sides of a small one round differently.
MAX_RATIO = 1.35
# Images whose gradients are in memory at once.
CHUNK = 8


@dataclass(frozen=True)
class Layout:
    """How a tensor of activations is a map.

    Args:
        channels: dimension of the channels.
        prefix: tokens before those of the image.
        grid: height and width.
    """

    channels: int
    prefix: int
    grid: tuple[int, int]

    def places(self, values: Tensor) -> Tensor:
        """Return values as `[images, height, width, channels]`."""
        last = values.movedim(self.channels, -1)
        places = last.reshape(len(last), -1, last.shape[-1])[:, self.prefix :]
        return places.reshape(len(last), *self.grid, last.shape[-1])


@dataclass(frozen=True)
class SpatialMap:
    """The map that is explained.

    Args:
        module: path of the module that returns it.
        call: number of its call, from 1, since a module may run several times.
        layout: of the tensor.
    """

    module: str
    call: int
    layout: Layout


def layout_of(shape: Sequence[int], images: int, size: tuple[int, int]) -> Layout | None:
    """Return how a tensor of a shape is a map of the images; None if it is not.

    Args:
        shape: of the tensor.
        images: in the batch.
        size: height and width of the network's input in pixels.
    """
    if len(shape) < 3 or shape[0] != images:
        return None
    if len(shape) == 4:
        if _is_grid(shape[2], shape[3], size):
            return Layout(1, 0, (shape[2], shape[3]))
        return Layout(3, 0, (shape[1], shape[2])) if _is_grid(shape[1], shape[2], size) else None
    if len(shape) > 4:
        return None
    for prefix in range(min(MAX_PREFIX + 1, shape[1])):
        tokens = shape[1] - prefix
        height = max(round(math.sqrt(tokens * size[0] / size[1])), 1)
        if tokens % height == 0 and _is_grid(height, tokens // height, size):
            return Layout(2, prefix, (height, tokens // height))
    return None


def _is_grid(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether sides are those of the input, divided by whole and nearly equal strides."""
    if height * width < 2:
        return False
    strides = [max(round(full / side), 1) for full, side in zip(size, (height, width), strict=True)]
    whole = all(
        abs(full / stride - side) <= 1
        for full, stride, side in zip(size, strides, (height, width), strict=True)
    )
    return whole and max(strides) <= MAX_RATIO * min(strides)


Visit = Callable[[str, int, Tensor], Tensor | None]


@contextmanager
def _visiting(network: Network, visit: Visit) -> Iterator[None]:
    """Call a function with the outputs of all modules that return before the main head runs.

    Args:
        network: that runs in the block.
        visit: takes path, number of the call and output of a module; a tensor that it returns
            replaces the output.
    """
    calls: Counter[str] = Counter()
    arrived, owner = False, get_ident()

    def at_head(*_: object) -> None:
        nonlocal arrived
        arrived = arrived or get_ident() == owner

    def after(path: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        def hook(_: nn.Module, __: object, output: object) -> Tensor | None:
            if get_ident() != owner:  # another thread predicts with the same network
                return None
            calls[path] += 1
            if arrived or not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            return visit(path, calls[path], output)

        return hook

    module = network.module
    handles = [module.get_submodule(network.paths[0]).register_forward_pre_hook(at_head)]
    handles += [part.register_forward_hook(after(path)) for path, part in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _differentiable(network: Network) -> Iterator[None]:
    """Run a network in eval mode with gradients, without counting its forward passes."""
    forwards, modes = network.forwards, {m: m.training for m in network.module.modules()}
    try:
        with inference_mode_of(network.module), torch.enable_grad():
            yield
    finally:
        network.forwards = forwards
        for part, mode in modes.items():
            part.training = mode


def _score(network: Network, pixels: Tensor, outputs: Tensor) -> Tensor:
    """Return the sum of one output of each image."""
    main = network.forward(pixels).main
    return main.gather(1, outputs.to(main.device)[:, None]).float().sum()


def find_map(network: Network, pixels: Tensor, output: int) -> SpatialMap:
    """Return the last map before the main head through which several places reach an output.

    In a network that pools by a class token, what the last block returns of the image's tokens
    reaches no output, so an earlier map is taken.

    Args:
        network: on its device.
        pixels: `[1, channels, height, width]`, as for `Network.forward`.
        output: number of the output.

    Raises:
        UsageError: there is none.
    """
    count = len(_candidates(network, pixels, output))
    # The last quarter of the candidates almost always has it, and costs little of a backward pass.
    for first in (3 * count // 4, 0):
        found = _candidates(network, pixels, output, first)
        for place, gradient in reversed(found):
            if gradient is not None:
                reached = place.layout.places(gradient).ne(0).any(dim=-1)
                if int(reached.sum()) > 1:
                    return place
    message = "the network has no spatial map before its head"
    raise UsageError(message, "activation maps need one: omit --explain")


def _candidates(
    network: Network, pixels: Tensor, output: int, first: int | None = None
) -> list[tuple[SpatialMap, Tensor | None]]:
    """Return the maps before the main head, each with the gradient of an output by it.

    Args:
        network: on its device.
        pixels: `[1, channels, height, width]`.
        output: number of the output.
        first: number of the map that gradients are propagated to; None for no gradients.
    """
    found: list[tuple[SpatialMap, Tensor]] = []
    size = (pixels.shape[2], pixels.shape[3])

    def visit(path: str, call: int, output: Tensor) -> Tensor | None:
        layout = layout_of(output.shape, 1, size)
        if layout is None:
            return None
        starts = len(found) == first
        returned = output.detach().requires_grad_().clone() if starts else output
        found.append((SpatialMap(path, call, layout), returned))
        return returned if starts else None

    with _differentiable(network):
        with _visiting(network, visit):
            score = _score(network, pixels, torch.tensor([output]))
        reachable = [tensor for _, tensor in found if tensor.requires_grad]
        if not reachable or not score.requires_grad:
            return [(place, None) for place, _ in found]
        each = iter(torch.autograd.grad(score, reachable, allow_unused=True))
    return [(place, next(each) if tensor.requires_grad else None) for place, tensor in found]


def activation_maps(
    network: Network, pixels: Tensor, outputs: Tensor, place: SpatialMap | None = None
) -> Tensor:
    """Return what each place of the images adds to an output, `[images, height, width]` float32.

    Args:
        network: on its device, with one output per image and class.
        pixels: `[images, channels, height, width]`, as for `Network.forward`.
        outputs: `[images]`, number of the output to explain of each image.
        place: from `find_map`; None to find it with the first image.

    Returns:
        On the CPU, of the height and width of the map; nothing is below 0.

    Raises:
        UsageError: the network has no spatial map before its head.
    """
    place = place or find_map(network, pixels[:1], int(outputs[0]))
    parts = zip(pixels.split(CHUNK), outputs.split(CHUNK), strict=True)
    return torch.cat([_maps(network, images, chosen, place) for images, chosen in parts])


def _maps(network: Network, pixels: Tensor, outputs: Tensor, place: SpatialMap) -> Tensor:
    leaves: list[Tensor] = []

    def visit(path: str, call: int, output: Tensor) -> Tensor | None:
        if (path, call) != (place.module, place.call):
            return None
        leaves.append(output.detach().requires_grad_())
        return leaves[0].clone()  # which a later layer may change in place

    with _differentiable(network):
        with _visiting(network, visit):
            score = _score(network, pixels, outputs)
        (gradient,) = torch.autograd.grad(score, leaves)
    product = place.layout.places((leaves[0].detach() * gradient).float())
    return product.sum(dim=-1).clamp(min=0).cpu()
