"""Derived backbones: `[backbones."house/leaf"]` of a `registry.toml`, laid over an installed one.

An entry is data: it can choose weights, heads and preprocess, and nothing in it can name code.
What can be checked alone is checked when the file is read, the rest when the base is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import RegistryError, UsageError
from zoo.registry.tomlfile import Keys, Kinds, TomlFile
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
    "hub": (r"[\w.\-]+/[\w.\-]+(:[^\s:]+)?", "org/repository, maybe with :file"),
    # What looks like a file would be taken for one by --weights.
    "tag": (
        r"(?!.*\.(safetensors|pth|pt|bin|ckpt)$)[A-Za-z0-9][\w.\-]*",
        "letters, digits, _ . -, and not like the name of a file",
    ),
}
NAME = r"[A-Za-z0-9][\w.\-]*"
MAX_SIDE = 1 << 14
MAX_CLASSES = 10**7


class Stated(NamedTuple):
    """Weights as an entry states them, before the base is known.

    Args:
        keys: where they stand in the file.
        weights: without what comes from the base.
        table: the entry itself.
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
        file: the file that describes it.
        heads: in place of the base's, by path or in full; None for the base's.
        weights: in place of the base's; None for the base's.
        preprocess: laid over the base's.
        license: of its default weights, where they state none themselves; for the base's weights
            it stands above what the base says.
        task: that it is trained for, its head replaced; None for the base's.
    """

    id: str
    extends: str
    file: TomlFile
    heads: tuple[str | Head, ...] | None = None
    weights: tuple[Stated, ...] | None = None
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

    def error(self, key: str | None, said: str, hint: str | None = None) -> RegistryError:
        """Return an error about this entry or one of its keys, for the caller to raise."""
        keys: Keys = ("backbones", self.id)
        return self.file.error(keys if key is None else (*keys, key), said, hint)

    def derive(self, base: Backbone) -> Backbone:
        """Return the base with this entry laid over it.

        Raises:
            RegistryError: the two do not go together; says file, line and key.
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
                origin=f"{self.file.where('backbones', self.id)}, extending {base.id}",
                extends=base,
            )
        except UsageError as error:
            raise self.error(None, f"cannot be used: {error.message}", error.hint) from error

    def _heads(self, base: Backbone, stated: tuple[str | Head, ...]) -> tuple[Head, ...]:
        key = "head" if "head" in self.file.content["backbones"][self.id] else "heads"
        if base.refuse:
            raise self.error(key, f"has no use: {base.id} cannot be fine-tuned: {base.refuse}")
        # A path says all where the base has a head there, such as where its logits come out.
        known = {head.module_path: head for head in base.heads}
        heads = tuple(
            known.get(".".join(path_steps(item)), Head(item)) if isinstance(item, str) else item
            for item in stated
        )
        if [head.role for head in heads].count("main") != 1 or heads[0].role != "main":
            roles = ", ".join(f"{head.path} ({head.role})" for head in heads)
            hint = 'write the others as { path = "...", role = "aux" }'
            raise self.error(key, f"must be one main head, then any others, not {roles}", hint)
        if len({head.module_path for head in heads}) != len(heads):
            raise self.error(key, "names a head twice")
        return heads

    def _preprocess(
        self, base: Backbone, before: Preprocess, stated: Stated | None = None
    ) -> Preprocess:
        """Lay the entry's preprocess, and then that of its weights, over one of the base's."""
        layers: list[tuple[Keys, Mapping[str, Any] | None]] = [
            (("backbones", self.id, "preprocess"), self.preprocess)
        ]
        if stated is not None:
            layers.append(((*stated.keys, "preprocess"), stated.table.get("preprocess")))
        after = before
        for keys, table in layers:
            if table is not None:
                after = _overlay(after, table)
                _check_fits(self.file, keys, base, before, after)
        return after

    def _weights(self, base: Backbone) -> tuple[Weights, ...]:
        if self.weights is not None:
            return tuple(self._completed(base, stated) for stated in self.weights)
        kept = base.weights
        if self.preprocess is not None:
            kept = tuple(
                replace(weights, preprocess=self._preprocess(base, weights.preprocess))
                if weights.preprocess
                else weights
                for weights in kept
            )
        if self.license is not None and kept:
            kept = (replace(kept[0], license=self.license), *kept[1:])
        return kept

    def _completed(self, base: Backbone, stated: Stated) -> Weights:
        """Return weights with what a file of tensors does not say, as the base's have it."""
        asked = stated.table.get("like")
        like = base.weights[0] if base.weights else None
        if asked == "none":
            like = None
        elif asked is not None:
            try:
                like = base.find_weights(asked)
            except UsageError as error:
                keys = (*stated.keys, "like")
                raise self.file.error(keys, f"is unknown: {error.message}", error.hint) from error
        given = stated.weights
        classes, number = given.classes, stated.table.get("num_classes")
        features_only = number == 0
        if number is None and classes is None and like is not None:
            number, features_only = like.num_classes, like.features_only
            # Which class is which is nothing to guess, only to be told.
            classes = like.classes if asked else None
        elif number is None:
            number = len(classes) if classes else given.num_classes
        return replace(
            given,
            num_classes=number,
            classes=classes,
            features_only=features_only,
            kwargs=like.kwargs if like else {},
            preprocess=self._preprocess(base, base.preprocess_for(like), stated),
        )


def _overlay(base: Preprocess, table: Mapping[str, Any]) -> Preprocess:
    values = dict(table)
    if "resize" not in values and values.get("crop", base.crop) != base.crop:
        values["resize"] = None  # the convention of the new crop
    elif "resize" not in values and "size" in values:
        size = values["size"]
        side = size if isinstance(size, int) else min(size)
        assert base.resize is not None
        values["resize"] = max(1, base.resize * side // min(base.height, base.width))
    return replace(base, **values)


def _check_fits(
    file: TomlFile, keys: Keys, base: Backbone, before: Preprocess, after: Preprocess
) -> None:
    """Refuse a size that the network does not take."""
    if after.size == before.size:
        return
    keys = (*keys, "size")
    if base.fixed_size:
        size = f"{before.height}x{before.width}"
        raise file.error(keys, f"cannot be changed: {base.id} takes no size but {size}")
    if base.min_size and min(after.height, after.width) < base.min_size:
        raise file.error(keys, f"is too small: {base.id} takes at least {base.min_size} pixels")


def read_entries(file: TomlFile, table: Mapping[str, Any]) -> dict[str, Entry]:
    """Read the derived backbones of a file, checking what can be checked without their bases.

    Raises:
        RegistryError: says file, line and key.
    """
    return {id: _read_entry(file, id, content) for id, content in table.items()}


def _read_entry(file: TomlFile, id: str, table: Any) -> Entry:
    keys: Keys = ("backbones", id)
    if not re.fullmatch(f"{NAME}/{NAME}", id):
        hint = 'write [backbones."source/name"], in letters, digits, _ . and -'
        raise file.error(keys, "is no id of a backbone", hint)
    file.check(keys, table, ENTRY)
    if "extends" not in table:
        raise file.error(keys, "names no backbone to extend", 'add extends = "..."')
    return Entry(
        id=id,
        extends=table["extends"],
        file=file,
        heads=_read_heads(file, keys, table),
        weights=_read_all_weights(file, keys, table),
        preprocess=_read_preprocess(file, (*keys, "preprocess"), table),
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
            # One at a time, beside what is sound, so that the line is that of the wrong one.
            Preprocess(**{"size": 224, key: value})
        except UsageError as error:
            said = f"cannot be used: {error.message}"
            raise file.error((*keys, key), said, error.hint) from error
        sides = value if key == "size" and isinstance(value, list) else [value]
        if key in ("size", "resize") and not all(1 <= side <= MAX_SIDE for side in sides):
            raise file.error((*keys, key), f"must be from 1 to {MAX_SIDE} pixels, not {value!r}")
    return dict(table)


def _read_all_weights(
    file: TomlFile, keys: Keys, table: Mapping[str, Any]
) -> tuple[Stated, ...] | None:
    if "weights" not in table:
        return None
    keys = (*keys, "weights")
    if not table["weights"]:
        raise file.error(keys, "is empty", "leave it out for the base's weights")
    stated = tuple(
        _read_weights(file, (*keys, number), item) for number, item in enumerate(table["weights"])
    )
    seen: set[str] = set()
    for item in stated:
        if item.weights.tag in seen:
            raise file.error((*item.keys, "tag"), f"{item.weights.tag!r} is taken twice")
        seen.add(item.weights.tag)
    return stated


def _read_weights(file: TomlFile, keys: Keys, table: Any) -> Stated:
    file.check(keys, table, WEIGHTS)
    for key in ("tag", "sha256"):
        if key not in table:
            raise file.error(keys, f"has no {key}", f'add {key} = "...", {SHAPES[key][1]}')
    for key, (pattern, words) in SHAPES.items():
        if key in table and not re.fullmatch(pattern, table[key]):
            raise file.error((*keys, key), f"is {table[key]!r}", f"give {words}")
    classes = _read_classes(file, keys, table)
    _read_preprocess(file, (*keys, "preprocess"), table)
    stated = {key: table[key] for key in ("tag", "url", "hub", "sha256", "license") if key in table}
    if "file" in table:
        stated["file"] = _place(file, (*keys, "file"), table["file"])
    try:
        return Stated(keys, Weights(**stated, classes=classes), table)
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
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise file.error(keys, f"names {twice[0]!r} twice")
    if number not in (None, len(classes)):
        raise file.error(keys, f"names {len(classes)} classes, but num_classes is {number}")
    return tuple(classes)


def _place(file: TomlFile, keys: Keys, stated: str) -> str:
    """Return an absolute path, so that it can never be read as a place in a package."""
    try:
        if "\0" in stated:
            raise ValueError("it holds a zero byte")
        return str(file.path.absolute().parent / Path(stated).expanduser())
    except (ValueError, RuntimeError) as error:
        raise file.error(keys, f"is no path: {error}") from error
