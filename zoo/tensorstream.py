"""Write a state dict as a safetensors file in parts, without a copy of it in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# torch's name and the size in bytes of each dtype of the format, in the library's order.
DTYPES = {
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
    "F32": ("float32", 4),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
NAMES = {name: kind for kind, (name, _) in DTYPES.items()}
ORDER = {name: number for number, name in enumerate(NAMES)}
ALIGNMENT = 8


class TensorStream:
    """A state dict as the parts of a safetensors file; may be iterated several times.

    Args:
        tensors: by name; shared storage is duplicated.

    Raises:
        TypeError: a tensor is not dense, or of a type that the format does not have.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        kinds = {name: _kind(name, tensor) for name, tensor in tensors.items()}
        header, end, self._tensors = {}, 0, []
        for name, kind in sorted(kinds.items(), key=lambda item: (ORDER[item[1]], item[0])):
            tensor, start = tensors[name], end
            self._tensors.append(tensor)
            end += tensor.numel() * tensor.element_size()
            shape, offsets = list(tensor.shape), [start, end]
            header[name] = {"dtype": NAMES[kind], "shape": shape, "data_offsets": offsets}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text = text.ljust(-(-len(text) // ALIGNMENT) * ALIGNMENT)
        self._header = len(text).to_bytes(8, "little") + text

    def __iter__(self) -> Iterator[bytes | memoryview]:
        import torch

        yield self._header
        for tensor in self._tensors:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _kind(name: str, tensor: Tensor) -> str:
    """Return torch's name of a tensor's type.

    Raises:
        TypeError: it cannot be written.
    """
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or kind not in NAMES:
        raise TypeError(f"{name} is a tensor of {kind}, {tensor.layout}, which is not written")
    return kind


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return a state dict as the bytes of a safetensors file; shared storage is duplicated."""
    import safetensors.torch

    storages: set[int] = set()
    separate = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in storages or tensor._base is not None
        separate[name] = tensor.clone() if shared else tensor
        storages.add(storage)
    return safetensors.torch.save(separate, metadata)
