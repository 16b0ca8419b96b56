"""Import a user's weights: any checkpoint of tensors into a safetensors file or a model file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from torch import Tensor, nn

from zoo.engine.run.artifacts import save_module
from zoo.errors import UsageError, WeightsError, ZooError, counted
from zoo.files import write_bytes
from zoo.modelfile import KEY
from zoo.models.base_weights import BaseWeights, resolve_base
from zoo.models.build import build
from zoo.models.builder import build_on_meta
from zoo.models.heads import resolve_head
from zoo.models.own_file import OwnFile
from zoo.models.pickled import Pickled, read_pickled
from zoo.models.provenance import provenance_of
from zoo.models.state_fit import without_prefix
from zoo.models.wrappers import COMPILED
from zoo.options.readers import class_names
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask, Schema, load_task
from zoo.tensorfile import file_kind, read_tensors, tensor_bytes

# Prefixes that torch itself puts before every name. Without a network to compare names with, others
# may be the network's own; `--weights` takes those off.
WRAPPERS = ("module.", f"{COMPILED}.")
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Args:
        path: of the file that was written.
        sha256: of that file.
        source: the file that was read.
        source_sha256: of that file.
        tensors: number of tensors.
        backbone: id; None for a plain state dict.
        classes: of a model file, in the order of its outputs; None for a plain state dict.
        notices: what was taken off, left out or assumed.
    """

    path: Path
    sha256: str
    source: Path
    source_sha256: str
    tensors: int
    backbone: str | None
    classes: tuple[str, ...] | None
    notices: tuple[str, ...]


def import_weights(
    source: Path,
    registry: Registry,
    out: Path | None = None,
    backbone: Backbone | None = None,
    classes: Sequence[str] | None = None,
) -> Imported:
    """Read a checkpoint of tensors without running code, and write it as safetensors.

    Args:
        source: as `torch.save` wrote it, or safetensors.
        registry: of tasks.
        out: the file to write; by default the source's name with the suffix `.safetensors`.
        backbone: of the network. With it the result is a model file, where the checkpoint has a
            main head and the task predicts classes; else a plain state dict.
        classes: names in the order of the outputs; by default those in the checkpoint, or numbers.

    Raises:
        UsageError: the output exists or has another suffix, or the number of classes is not that of
            the head's outputs.
        WeightsError: the source needs code, is damaged, or does not fit the backbone.
    """
    classes = None if classes is None else class_names(classes)
    out = out or source.with_suffix(SUFFIX)
    _check_out(out)
    read = _read(source)
    notices = []
    if read.keys:
        notices.append(f"the state dict is taken from {'.'.join(map(repr, read.keys))}")
    if read.others:
        notices.append(f"left out, as they are no tensors: {', '.join(read.others[:10])}")
    if backbone is None:
        tensors, prefix = _without_wrappers(read.file.tensors)
        notices += [f"the prefix {prefix!r} of its names is taken off"] if prefix else []
        sha256, names = _write_tensors(out, tensors), None
    else:
        task = load_task(registry.task(backbone.task))
        sha256, names, details = _write_model(source, out, read, backbone, task, classes)
        notices += details
    return Imported(
        path=out,
        sha256=sha256,
        source=source,
        source_sha256=read.file.sha256,
        tensors=len(read.file.tensors),
        backbone=backbone.id if backbone is not None and names is not None else None,
        classes=names,
        notices=tuple(notices),
    )


def _check_out(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out} is no {SUFFIX} file", f"write {out.with_suffix(SUFFIX)}")
    if out.exists():
        raise UsageError(f"{out} exists", "give another file with --out")


def _read(source: Path) -> Pickled:
    """Read a safetensors file, or a pickle in a process of its own, by what the file is."""
    kind = file_kind(source)
    if kind is None or kind.pickled:
        return read_pickled(source)
    content = read_tensors(source)
    if KEY in content.metadata:
        hint = f"`zoo predict {quote(str(source))}` and `zoo finetune {quote(str(source))}` take it"
        raise UsageError(f"{source} is a model file of zoo", hint)
    return Pickled(content, (), (), ())


def _without_wrappers(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Take the prefixes of torch's own wrappers off every name, and return them."""
    prefix = ""
    while wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
        prefix += wrapper
    return tensors, prefix


def _write_tensors(out: Path, tensors: dict[str, Tensor]) -> str:
    data = tensor_bytes(tensors)
    write_bytes(out, data)
    return hashlib.sha256(data).hexdigest()


def _write_model(
    source: Path,
    out: Path,
    read: Pickled,
    backbone: Backbone,
    task: BaseTask,
    classes: Sequence[str] | None,
) -> tuple[str, tuple[str, ...] | None, list[str]]:
    """Write a model file, or a plain state dict where it has no head; return digest and classes."""
    base = resolve_base(backbone, None, own=OwnFile(source, read.file, None))
    network = build_on_meta(backbone, base.kwargs)
    tensors, _ = without_prefix(read.file.tensors, network.state_dict())
    outputs = _outputs(network, backbone, tensors)
    model = build(backbone, base, outputs, seed=0)
    loaded = provenance_of(model).base
    notices = _details(loaded)
    schema = _schema(task, outputs, classes, read.classes, notices)
    if schema is None:
        return _write_tensors(out, tensors), None, notices
    notices.append(f"preprocess {base.preprocess_reason}")
    if loaded.new_heads[:1] == (resolve_head(model, backbone.heads[0].path),):
        message = f"{source} does not fit {backbone.id}: its head does not"
        raise WeightsError(message, "convert it without a backbone, for its tensors alone")
    sha256 = save_module(model, out, schema, provenance_of(model))
    return sha256, schema.classes, notices


def _outputs(model: nn.Module, backbone: Backbone, tensors: dict[str, Tensor]) -> int | None:
    """Return the number of outputs of the main head in a state dict; None where it has none."""
    if not backbone.heads:
        return None
    weight = tensors.get(f"{resolve_head(model, backbone.heads[0].path)}.weight")
    return None if weight is None else len(weight)


def _details(base: BaseWeights) -> list[str]:
    details = [f"the prefix {base.prefix!r} of its names is taken off"] if base.prefix else []
    if base.new_heads:
        details.append(f"it has no head {', '.join(base.new_heads)}")
    return details


def _schema(
    task: BaseTask,
    outputs: int | None,
    given: Sequence[str] | None,
    stored: Sequence[str],
    notices: list[str],
) -> Schema | None:
    """Return the schema of a head; None where there is none, or its targets are no classes."""
    if given is not None and len(given) != outputs:
        message = f"--classes names {counted(len(given), 'class')}, but the head has "
        message += counted(outputs or 0, "output")
        raise UsageError(message, "give a unique name per class, in the order of the outputs")
    if outputs is None:
        notices.append("without its head it predicts nothing; train it with --weights")
        return None
    names = given or (stored if len(stored) == outputs else [str(n) for n in range(outputs)])
    try:
        schema = task.schema_from_dict({"classes": list(names)})
    except (TypeError, ValueError, ZooError):
        schema = None
    if schema is None or schema.outputs != outputs:
        notices.append(f"what its {outputs} outputs mean is not known; train it with --weights")
        return None
    if given is None and len(stored) == outputs:
        notices.append("its classes are named in the checkpoint")
    elif given is None:
        notices.append("it names no classes, so they are numbers; name them with --classes FILE")
    return schema
