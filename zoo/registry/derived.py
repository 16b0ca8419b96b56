"""Derived backbones: `[backbones."house/leaf"]` of a `registry.toml`, extending an installed one.

An entry is data: it selects weights, heads and preprocess, and cannot name code. It is validated
when the file is read, and against its base when it is derived.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from zoo.errors import RegistryError, UsageError, counted
from zoo.registry.tomlfile import Faults, Keys, Kinds, TomlFile
from zoo.spec import Backbone, Head, Preprocess, Weights, path_steps

ENTRY: Kinds = {
    "extends": (str,),
    "weights": (list,),
    "license": (str,),
    "head": (str,),
    "heads": (list,),
    "preprocess": (dict,),
    "task": (str,),
}
WEIGHTS: Kinds = {
    "tag": (str,),
    "file": (str,),
    "url": (str,),
    "hub": (str,),
    "sha256": (str,),
    "license": (str,),
    "num_classes": (int,),
    "classes": (list,),
    "preprocess": (dict,),
    "like": (str,),
}
HEAD: Kinds = {"path": (str,), "role": (str,), "loss_weight": (int, float), "output": (str, int)}
PREPROCESS: Kinds = {
    "size": (int, list),
    "resize": (int,),
    "crop": (str,),
    "interpolation": (str,),
    "mean": (list,),
    "std": (list,),
}
SHAPES = {
    "sha256": (r"[0-9A-Fa-f]{64}", "the 64 hexadecimal digits that `sha256sum FILE` prints"),
    "url": (r"https?://[^\s/]+/\S+", "an http or https address"),
    "hub": (r"[\w.\-]+/[\w.\-]+(:[^\s:]+)?", "org/repository, optionally with :file"),
    # --weights would read a tag that looks like a file name as a file.
    "tag": (
        r"(?!.*\.(safetensors|pth|pt|bin|ckpt)$)[A-Za-z0-9][\w.\-]*",
        "letters, digits, _ . -, and not like the name of a file",
    ),
}
NAME = r"[A-Za-z0-9][\w.\-]*"
MAX_SIDE = 1 << 14
MAX_CLASSES = 10**7


class WeightsEntry(NamedTuple):
    """Weights as a file describes them, before their base is resolved.

    Args:
        keys: path of the table in the file.
        weights: without the fields inherited from the base.
        table: as in the file.
    """

    keys: Keys
    weights: Weights
    table: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A derived backbone as its file describes it.

    Args:
        id: `source/name`.
        extends: id, bare name or alias of its base.
        file: of the entry.
        heads: instead of the base's, as paths or in full; None for the base's.
        weights: instead of the base's; None for the base's.
        preprocess: overrides fields of the base's.
        license: of its default weights, where they have none of their own; overrides that of
            inherited weights.
        task: of the derived backbone, whose head is replaced; None for the base's.
    """

    id: str
    extends: str
    file: TomlFile
    heads: tuple[str | Head, ...] | None = None
    weights: tuple[WeightsEntry, ...] | None = None
    preprocess: Mapping[str, Any] | None = None
    license: str | None = None
    task: str | None = None

    @property
    def source(self) -> str:
        """The part of the id before the slash."""
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        """The part of the id after the slash."""
        return self.id.partition("/")[2]

    def error(self, key: str | None, problem: str, hint: str | None = None) -> RegistryError:
        """Return an error about this entry or one of its keys, for the caller to raise."""
        keys: Keys = ("backbones", self.id)
        return self.file.error(keys if key is None else (*keys, key), problem, hint)

    def derive(self, base: Backbone) -> Backbone:
        """Return the base, overridden by this entry.

        Raises:
            RegistryError: the entry does not fit the base; names file, line and key.
        """
        heads = base.heads if self.heads is None else self._heads(base, self.heads)
        preprocess = self._preprocess(base, base.preprocess)
        weights = self._weights(base)
        same_width = self.weights is None or (
            [w.num_classes for w in weights[:1]] == [w.num_classes for w in base.weights[:1]]
        )
        try:
            return replace(
                base,
                name=self.name,
                heads=heads,
                preprocess=preprocess,
                weights=weights,
                license=self.license or (base.license if self.weights is None else None),
                params=base.params if same_width else None,
                task=self.task or base.task,
                source=self.source,
                origin=f"{self.file.location('backbones', self.id)}, extending {base.id}",
                extends=base,
                selected=None,
                aliases=(),
            )
        except UsageError as error:
            raise self.error(None, f"cannot be used: {error.message}", error.hint) from error

    def _heads(self, base: Backbone, items: tuple[str | Head, ...]) -> tuple[Head, ...]:
        key = "head" if "head" in self.file.content["backbones"][self.id] else "heads"
        if base.refuse:
            raise self.error(key, f"has no effect: {base.id} cannot be fine-tuned: {base.refuse}")
        # The path of a head of the base selects it with its other fields, such as its output.
        known = {head.module_path: head for head in base.heads}
        heads = tuple(
            known.get(".".join(path_steps(item)), Head(item)) if isinstance(item, str) else item
            for item in items
        )
        if [head.role for head in heads].count("main") != 1 or heads[0].role != "main":
            roles = ", ".join(f"{head.path} ({head.role})" for head in heads)
            hint = 'write the others as { path = "...", role = "aux" }'
            raise self.error(key, f"must be one main head, then any others, not {roles}", hint)
        if len({head.module_path for head in heads}) != len(heads):
            raise self.error(key, "names a head twice")
        return heads

    def _preprocess(
        self, base: Backbone, inherited: Preprocess, weights: WeightsEntry | None = None
    ) -> Preprocess:
        """Override a preprocess of the base by the entry's, then by that of its weights."""
        layers: list[tuple[Keys, Mapping[str, Any] | None]] = [
            (("backbones", self.id, "preprocess"), self.preprocess)
        ]
        if weights is not None:
            layers.append(((*weights.keys, "preprocess"), weights.table.get("preprocess")))
        preprocess = inherited
        for keys, table in layers:
            if table is not None:
                preprocess = _override(preprocess, table)
                _check_size(self.file, keys, base, inherited, preprocess)
        return preprocess

    def _weights(self, base: Backbone) -> tuple[Weights, ...]:
        if self.weights is not None:
            return tuple(self._completed(base, entry) for entry in self.weights)
        inherited = base.weights
        if self.preprocess is not None:
            inherited = tuple(
                replace(weights, preprocess=self._preprocess(base, weights.preprocess))
                if weights.preprocess
                else weights
                for weights in inherited
            )
        if self.license is not None and inherited:
            inherited = (replace(inherited[0], license=self.license), *inherited[1:])
        return inherited

    def _completed(self, base: Backbone, entry: WeightsEntry) -> Weights:
        """Return weights with the fields that they inherit from those they are `like`."""
        tag = entry.table.get("like")
        like = base.weights[0] if base.weights else None
        if tag == "none":
            like = None
        elif tag is not None:
            try:
                like = base.find_weights(tag)
            except UsageError as error:
                keys = (*entry.keys, "like")
                raise self.file.error(keys, f"is unknown: {error.message}", error.hint) from error
        classes, number = entry.weights.classes, entry.table.get("num_classes")
        features_only = number == 0
        if number is None and classes is None and like is not None:
            number, features_only = like.num_classes, like.features_only
            # Class names are inherited only when `like` is explicit.
            classes = like.classes if tag else None
        elif number is None:
            number = len(classes) if classes else entry.weights.num_classes
        return replace(
            entry.weights,
            num_classes=number,
            classes=classes,
            features_only=features_only,
            kwargs=like.kwargs if like else {},
            preprocess=self._preprocess(base, base.preprocess_for(like), entry),
        )


def _override(base: Preprocess, table: Mapping[str, Any]) -> Preprocess:
    values = dict(table)
    if "resize" not in values and values.get("crop", base.crop) != base.crop:
        values["resize"] = None  # the convention of the new crop
    elif "resize" not in values and "size" in values:
        size = values["size"]
        side = size if isinstance(size, int) else min(size)
        assert base.resize is not None
        values["resize"] = max(1, base.resize * side // min(base.height, base.width))
    return replace(base, **values)


def _check_size(
    file: TomlFile, keys: Keys, base: Backbone, inherited: Preprocess, preprocess: Preprocess
) -> None:
    """Refuse a size that the network does not support."""
    if preprocess.size == inherited.size:
        return
    keys = (*keys, "size")
    if base.fixed_size:
        size = f"{inherited.height}x{inherited.width}"
        raise file.error(keys, f"cannot be changed: {base.id} takes no size but {size}")
    if base.min_size and min(preprocess.height, preprocess.width) < base.min_size:
        raise file.error(keys, f"is too small: {base.id} takes at least {base.min_size} pixels")


def read_entries(file: TomlFile, table: Mapping[str, Any]) -> dict[str, Entry]:
    """Read the derived backbones of a file, and validate all that does not depend on their bases.

    Raises:
        RegistryError: some are invalid; names file, line and key of each fault.
    """
    faults = Faults(file)
    read = {id: faults.collected(_read_entry, file, id, item) for id, item in table.items()}
    faults.raise_all()
    return {id: entry for id, entry in read.items() if entry is not None}


def _read_entry(file: TomlFile, id: str, table: Any) -> Entry:
    keys: Keys = ("backbones", id)
    if not re.fullmatch(f"{NAME}/{NAME}", id):
        hint = 'write [backbones."source/name"], in letters, digits, _ . and -'
        raise file.error(keys, "is no id of a backbone", hint)
    file.check(keys, table, ENTRY)
    if "extends" not in table:
        raise file.error(keys, "names no backbone to extend", 'add extends = "..."')
    faults = Faults(file)
    heads = faults.collected(_read_heads, file, keys, table)
    weights = faults.collected(_read_all_weights, file, keys, table)
    preprocess = faults.collected(_read_preprocess, file, (*keys, "preprocess"), table)
    faults.raise_all()
    return Entry(
        id=id,
        extends=table["extends"],
        file=file,
        heads=heads,
        weights=weights,
        preprocess=preprocess,
        license=table.get("license"),
        task=table.get("task"),
    )


def _read_heads(
    file: TomlFile, keys: Keys, table: Mapping[str, Any]
) -> tuple[str | Head, ...] | None:
    if "head" in table and "heads" in table:
        raise file.error((*keys, "heads"), "excludes head", "give one of them")
    if "head" in table:
        return (_read_head(file, (*keys, "head"), table["head"]),)
    if "heads" not in table:
        return None
    if not table["heads"]:
        raise file.error((*keys, "heads"), "is empty", "leave it out for the base's heads")
    return tuple(
        _read_head(file, (*keys, "heads", number), item)
        for number, item in enumerate(table["heads"])
    )


def _read_head(file: TomlFile, keys: Keys, item: Any) -> str | Head:
    try:
        if isinstance(item, str):
            path_steps(item)
            return item
        file.check(keys, item, HEAD)
        if "path" not in item:
            raise file.error(keys, "has no path", 'add path = "..."')
        if not 0 <= item.get("loss_weight", 1) < float("inf"):
            raise file.error((*keys, "loss_weight"), "must be a number from 0")
        return Head(**item)
    except RegistryError:
        raise
    except UsageError as error:
        raise file.error(keys, f"cannot be used: {error.message}", error.hint) from error


def _read_preprocess(file: TomlFile, keys: Keys, owner: Mapping[str, Any]) -> dict[str, Any] | None:
    if "preprocess" not in owner:
        return None
    table = owner["preprocess"]
    file.check(keys, table, PREPROCESS)
    for key, value in table.items():
        try:
            # One key at a time, so that the error has the line of the invalid one.
            Preprocess(**{"size": 224, key: value})
        except UsageError as error:
            problem = f"cannot be used: {error.message}"
            raise file.error((*keys, key), problem, error.hint) from error
        sides = value if key == "size" and isinstance(value, list) else [value]
        if key in ("size", "resize") and not all(1 <= side <= MAX_SIDE for side in sides):
            raise file.error((*keys, key), f"must be from 1 to {MAX_SIDE} pixels, not {value!r}")
    return dict(table)


def _read_all_weights(
    file: TomlFile, keys: Keys, table: Mapping[str, Any]
) -> tuple[WeightsEntry, ...] | None:
    if "weights" not in table:
        return None
    keys = (*keys, "weights")
    if not table["weights"]:
        raise file.error(keys, "is empty", "leave it out for the base's weights")
    entries = tuple(
        _read_weights(file, (*keys, number), item) for number, item in enumerate(table["weights"])
    )
    tags: set[str] = set()
    for entry in entries:
        if entry.weights.tag in tags:
            raise file.error((*entry.keys, "tag"), f"{entry.weights.tag!r} is taken twice")
        tags.add(entry.weights.tag)
    return entries


def _read_weights(file: TomlFile, keys: Keys, table: Any) -> WeightsEntry:
    file.check(keys, table, WEIGHTS)
    for key in ("tag", "sha256"):
        if key not in table:
            raise file.error(keys, f"has no {key}", f'add {key} = "...", {SHAPES[key][1]}')
    for key, (pattern, description) in SHAPES.items():
        if key in table and not re.fullmatch(pattern, table[key]):
            raise file.error((*keys, key), f"is {table[key]!r}", f"give {description}")
    classes = _read_classes(file, keys, table)
    _read_preprocess(file, (*keys, "preprocess"), table)
    values = {key: table[key] for key in ("tag", "url", "hub", "sha256", "license") if key in table}
    if "file" in table:
        values["file"] = file.absolute_path((*keys, "file"), table["file"])
    if classes is not None:
        values |= {"classes": classes, "num_classes": len(classes)}
    try:
        return WeightsEntry(keys, Weights(**values), table)
    except UsageError as error:
        raise file.error(keys, f"cannot be used: {error.message}", error.hint) from error


def _read_classes(file: TomlFile, keys: Keys, table: Mapping[str, Any]) -> tuple[str, ...] | None:
    number = table.get("num_classes")
    if number is not None and not 0 <= number <= MAX_CLASSES:
        raise file.error((*keys, "num_classes"), f"must be from 0 to {MAX_CLASSES}, not {number}")
    if "classes" not in table:
        return None
    keys, classes = (*keys, "classes"), table["classes"]
    if not classes or not all(isinstance(name, str) and name for name in classes):
        raise file.error(keys, "must be the names of the classes, in order")
    if duplicates := [name for name, count in Counter(classes).items() if count > 1]:
        raise file.error(keys, f"names {duplicates[0]!r} twice")
    if number not in (None, len(classes)):
        raise file.error(
            keys, f"names {counted(len(classes), 'class')}, but num_classes is {number}"
        )
    return tuple(classes)
