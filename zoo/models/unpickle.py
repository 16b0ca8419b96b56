"""The program that unpickles a checkpoint for `zoo.models.pickled`, with its memory limited.

`python -m zoo.models.unpickle FILE OUT BYTES SECONDS` prints a JSON object: `error` and `hint`, or
what is known of the tensors that it wrote to OUT.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.tensorfile import Content, read_content
from zoo.tensorstream import TensorStream

if TYPE_CHECKING:
    from torch import Tensor

# Keys of a training checkpoint under which the network's state dict is; averaged weights first, as
# timm selects them.
KEYS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
CLASS_KEYS = (
    "classes",
    "class_names",
    "class_to_idx",
    "idx_to_class",
    "id2label",
    "categories",
    "labels",
    "names",
)
MAX_DEPTH = 4
MAX_NAMES = 5
CODE = "zoo opens no file that runs code; where you trust it, save its state dict from Python"


class Refused(Exception):
    """A file that is not taken; has the reason, and what to do next."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.answer = {"error": reason, "hint": hint}


def _limit(memory: int, seconds: int) -> None:
    """Limit the further memory and time of this process."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        pages = 0  # no such file outside of Linux, where the limit is not enforced either
    if pages:
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _unpickle(content: Content) -> Any:
    """Unpickle a checkpoint, restricted to tensors and plain containers.

    Raises:
        Refused: it names anything else, or is damaged.
        MemoryError: it is larger than it states.
    """
    try:
        return content.load()
    except MemoryError:
        raise
    except Exception as error:  # whatever the parsers of a damaged file raise
        if "allocate memory" in str(error):
            raise MemoryError from error
        if "TorchScript" in str(error):
            raise Refused("is a TorchScript program, which is code", CODE) from error
        if names := _globals(bytes(content.data), error):
            more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
            called = f"{', '.join(names[:MAX_NAMES])}{more}"
            raise Refused(f"needs code to open: it calls {called}", CODE) from error
        if isinstance(error, pickle.UnpicklingError):
            raise Refused(f"is no checkpoint of tensors: {_short(error)}", CODE) from error
        raise Refused(f"is damaged, or no checkpoint: {_short(error)}") from error


def _globals(data: bytes, error: Exception) -> list[str]:
    """Return the names that a pickle would import and that are not allowed."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except Exception:  # it is not a zip archive, as of torch before 1.6, or damaged
        return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1] or _named_globals(data)


def _named_globals(data: bytes) -> list[str]:
    """Return the names that a plain pickle would import, of any protocol, in order."""
    names, texts = [], [""]
    try:
        for code, value, _ in pickletools.genops(data):
            if code.name == "GLOBAL":
                names.append(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(value, str):
                texts = [*texts[-1:], value]
    except Exception:  # whatever a damaged pickle raises
        return names
    return names


def _short(error: Exception) -> str:
    """Return the first sentence of an error, without torch's advice around its reason."""
    _, _, reason = str(error).rpartition("WeightsUnpickler error: ")
    return " ".join(reason.split()).partition(". ")[0][:160] or type(error).__name__


def _select(content: Any) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return the state dict in a checkpoint, the keys to it, and names of its other entries.

    Raises:
        Refused: there is none, or more than one.
    """
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < MAX_DEPTH:
        inner = [key for key, value in content.items() if _has_tensors(value)]
        known = [key for key in KEYS if _has_tensors(content.get(key), MAX_DEPTH)]
        if not known and (_has_tensors(content) or not inner):
            break
        if not known and len(inner) > 1:
            names = ", ".join(map(str, inner[:MAX_NAMES]))
            hint = "save the one of the network alone: torch.save(model.state_dict(), FILE)"
            raise Refused(f"contains several groups of tensors: {names}", hint)
        keys.append(str(known[0] if known else inner[0]))
        content = content[known[0] if known else inner[0]]
    if not _has_tensors(content):
        kind = type(content).__name__
        raise Refused(f"contains no state dict: a {kind} without tensors by name")
    tensors = {name: value for name, value in content.items() if _is_entry(name, value)}
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    return tensors, keys, [str(name) for name in content if name not in tensors]


def _is_entry(name: Any, value: Any) -> bool:
    import torch

    return isinstance(name, str) and isinstance(value, torch.Tensor)


def _has_tensors(value: Any, depth: int = 0) -> bool:
    """Whether a mapping has tensors by name, itself or in mappings up to a depth."""
    if not isinstance(value, Mapping):
        return False
    if any(_is_entry(*item) for item in value.items()):
        return True
    return depth > 0 and any(_has_tensors(inner, depth - 1) for inner in value.values())


def _check_tensor(name: str, tensor: Tensor) -> None:
    import torch

    kinds = {
        str(tensor.layout).removeprefix("torch."): tensor.layout != torch.strided,
        "quantized": tensor.is_quantized,
        "meta": tensor.is_meta,
        "complex": tensor.is_complex(),
    }
    for kind, present in kinds.items():
        if present:
            raise Refused(f"contains {name}, a {kind} tensor", "save it as a dense one of numbers")


def _classes(content: Any) -> list[str]:
    """Return the class names of a checkpoint, in the order of the outputs; empty for none."""
    for key in CLASS_KEYS if isinstance(content, Mapping) else ():
        value = content.get(key)
        names = _by_number(value) if isinstance(value, Mapping) else value
        named = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        if named and names and len(set(names)) == len(names):
            return list(names)
    return []


def _by_number(mapping: Mapping[Any, Any]) -> list[Any]:
    """Return the names of a mapping of names to numbers, or of numbers to names, from 0 on."""
    pairs = [(n, name) if isinstance(n, int) else (name, n) for n, name in mapping.items()]
    by_number = {number: name for number, name in pairs if isinstance(number, int)}
    return [by_number.get(number) for number in range(len(pairs))]


def convert(path: Path, out: Path) -> dict[str, Any]:
    """Write the tensors of a checkpoint as safetensors; return the answer."""
    file = read_content(path, any_kind=True)
    try:
        content = _unpickle(file)
        tensors, keys, others = _select(content)
        with out.open("wb") as written:
            written.writelines(TensorStream(tensors))
    except Refused as refused:
        return refused.answer
    return {"sha256": file.sha256, "keys": keys, "others": others, "classes": _classes(content)}


def main(path: str, out: str, memory: str, seconds: str) -> dict[str, Any]:
    """Limit this process, convert a checkpoint, and return the answer."""
    import safetensors.torch  # noqa: F401 - before the limit
    import torch

    torch.set_num_threads(1)
    _limit(int(memory), int(seconds))
    try:
        return convert(Path(path), Path(out))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        size = int(memory) >> 20
        hint = "a checkpoint of its size needs less; save its state dict alone"
        return {"error": f"takes more than {size:,} MiB of memory to open", "hint": hint}
    except OSError as error:
        return {"errno": error.errno, "strerror": error.strerror}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
