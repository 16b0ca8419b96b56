"""`zoo.FeatureExtractor`: features of batches of encoded images, for a cluster's workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from zoo.data.bad_images import UnreadableImages
from zoo.engine.backends.choice import AUTO, choose_alike
from zoo.engine.runtime.device import environment_errors
from zoo.errors import UsageError, did_you_mean
from zoo.inference.encoded import EncodedExtractor, EncodedImages, Extracted
from zoo.inference.loading import load_features
from zoo.models.own_file import locate_model
from zoo.options.arguments import check_arguments, names_arguments
from zoo.registry.names import name_of
from zoo.registry.plugin_scope import Selection, current
from zoo.registry.registry import load_registry

if TYPE_CHECKING:
    from zoo.options.given import Engine, NameOrPath
    from zoo.spec import Backbone

Features: TypeAlias = NDArray[np.float32]
ACTIONS = ("error", "mask")

# The extractor that this process has used last, by its settings: Spark unpickles for each task.
_loaded: dict[tuple[Any, ...], EncodedExtractor] = {}
_loading = threading.Lock()


def _forget() -> None:
    """Start anew in a forked process, which has no other thread: of an engine, or with the lock."""
    global _loading
    _loading = threading.Lock()
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class FeatureExtractor:
    """Computes the features of batches of encoded images, in the workers of a cluster.

    A picklable callable: it is pickled as its settings, and each process that calls it loads the
    network once. The features have the bytes that `zoo embed` writes for the same images in the
    same batches.

    Args:
        name: backbone or its name, or path of a model file or run folder that every worker can
            read.
        column: of the images in a batch that is a mapping or a data frame; None where one column
            alone contains bytes.
        bad_images: `error`, or `mask`: the features of an unreadable image are NaN, and a mapping
            gets the column `readable`.
        device: as torch names it, or `auto`.
        engine: that computes, or `auto`: that which the head of a model file was fitted on; for a
            backbone OpenVINO, on a CPU where it is installed and agrees with torch. Name one where
            the machines of a cluster differ.
        batch_size: images per forward pass; None for 32 on a CPU and 256 on a GPU, as `zoo embed`.
            The last ones of a call are padded with blank images.

    Attributes:
        images: number of images so far, in this process.
        unreadable: number of those that could not be read.

    Raises:
        UsageError: an argument is invalid.
        UnknownBackbone: no backbone has the name.
    """

    @names_arguments
    def __init__(
        self,
        name: NameOrPath | Backbone,
        *,
        column: str | None = None,
        bad_images: Literal["error", "mask"] = "error",
        device: str = "auto",
        engine: Engine = "auto",
        batch_size: int | None = None,
    ) -> None:
        check_arguments(batch_size=batch_size, engine=engine)
        if bad_images not in ACTIONS:
            hint = did_you_mean(str(bad_images), ACTIONS, f"one of {', '.join(ACTIONS)}")
            raise UsageError(f"bad_images is {bad_images!r}", hint)
        self.selection: Selection = current().selection
        # Relative paths would depend on the folder that a worker runs in.
        registry = self._registry()
        given = name_of(name)
        own = locate_model(given, registry)
        self.name = str(own.path.absolute()) if own else name_of(registry.get(given))
        self.column, self.bad_images = column, bad_images
        self.device, self.engine, self.batch_size = device, engine, batch_size
        self.images = self.unreadable = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings; the counts are those of a process."""
        return {**self.__dict__, "images": 0, "unreadable": 0}

    def __repr__(self) -> str:
        return f"FeatureExtractor({self.name!r}, device={self.device!r})"

    def _registry(self) -> Any:
        without, file, plugins = self.selection
        return load_registry(list(without), file, list(plugins))

    def _extractor(self) -> EncodedExtractor:
        """Return the extractor of this process, loaded on the first call."""
        key = (self.name, self.device, self.engine, self.batch_size, self.selection)
        with _loading:
            if key not in _loaded:
                _loaded.clear()
                model = load_features(self.name, self._registry(), self.device)
                given = str(self.engine)
                if given == AUTO and model.card is not None:
                    given = model.card.engine
                choice = choose_alike(model.network, given)
                _loaded[key] = EncodedExtractor(model, self.batch_size, choice=choice)
            return _loaded[key]

    @overload
    def __call__(self, batch: Sequence[bytes]) -> Features: ...

    @overload
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]: ...

    @overload
    def __call__(self, batch: Any) -> Any: ...

    @names_arguments
    def __call__(self, batch: Any) -> Any:
        """Return the features of a batch of encoded images.

        Args:
            batch: bytes of images; or, as Ray's `map_batches` and Spark's `mapInPandas` give it, a
                mapping of columns or a pandas data frame with a column of bytes.

        Returns:
            `[images, width]` float32; of a mapping its columns but that of the images, with those
            as `features`; of a data frame a data frame, with lists of floats as `features`.

        Raises:
            UnreadableImages: images cannot be read, and `bad_images` is `error`; names all.
            UsageError: no column contains bytes, or several; one has the name of a result; or a
                value is not bytes.
        """
        if isinstance(batch, Mapping):
            column = self._column(batch, list(batch))
            self._check_names(set(batch) - {column})
            others = {name: values for name, values in batch.items() if name != column}
            return others | self._columns(batch[column])
        if hasattr(batch, "columns") and hasattr(batch, "assign"):
            column = self._column(batch, list(batch.columns))
            self._check_names(set(batch.columns) - {column})
            columns = self._columns(batch[column])
            columns["features"] = columns["features"].tolist()
            return batch.drop(columns=column).assign(**columns)
        if isinstance(batch, (str, bytes)) or not isinstance(batch, Iterable):
            raise UsageError("a batch is a list of the bytes of images", "give [image]")
        return self._features(list(batch))[0]

    def _columns(self, values: Any) -> dict[str, Any]:
        features, extracted = self._features(list(values))
        masked = self.bad_images == "mask"
        return {"features": features} | ({"readable": extracted.readable} if masked else {})

    def _column(self, batch: Any, names: list[str]) -> str:
        """Return the name of the column of images.

        Raises:
            UsageError: there is none, or several contain bytes.
        """
        listed = ", ".join(map(str, names))
        if self.column is not None:
            if self.column in names:
                return self.column
            raise UsageError(f"a batch has no column {self.column!r}", f"it has {listed}")
        columns = [name for name in names if any(map(_is_bytes, batch[name]))]
        if len(columns) != 1:
            number = "no column" if not columns else f"the columns {', '.join(map(str, columns))}"
            message = f"{number} of a batch contain{'s' * (not columns)} bytes"
            raise UsageError(message, f"name that of the images by column=...; it has {listed}")
        return columns[0]

    def _check_names(self, others: set[Any]) -> None:
        """Check that the results replace no column of the batch.

        Raises:
            UsageError: they do.
        """
        results = {"features", "readable"} if self.bad_images == "mask" else {"features"}
        if taken := sorted(results & others):
            message = f"a batch has the column {taken[0]} already, which the extractor adds"
            raise UsageError(message, "rename or drop it")

    def _features(self, contents: list[Any]) -> tuple[Features, Extracted]:
        """Return the features of encoded images, NaN for unreadable ones where they are masked."""
        names = [f"image {index} of the batch" for index in range(len(contents))]
        problems = {
            index: "it is missing" for index, value in enumerate(contents) if _is_missing(value)
        }
        for name, value in zip(names, contents, strict=True):
            if not (_is_bytes(value) or _is_missing(value)):
                hint = "give the bytes of image files; of Ray's readers, by decoder=None"
                raise UsageError(f"{name} is a {type(value).__name__}, not bytes", hint)
        encoded = [bytes(v) if _is_bytes(v) else b"" for v in contents]
        extractor = self._extractor()
        with _loading, environment_errors("computing features"):
            extracted = extractor(EncodedImages("batch", names, encoded, problems))
        self.images += len(contents)
        self.unreadable += len(extracted.bad)
        if extracted.bad and self.bad_images == "error":
            error = UnreadableImages(extracted.bad, len(contents))
            error.hint = "remove them, or give bad_images='mask'"
            raise error
        width = extracted.features.shape[1] or extractor.width()
        features = np.full((len(contents), width), np.nan, dtype=np.float32)
        if len(extracted.features):
            features[extracted.readable] = extracted.features.numpy()
        return features, extracted


def _is_bytes(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview))


def _is_missing(value: Any) -> bool:
    """Whether a value stands for none, as NaN does in pandas."""
    return value is None or (isinstance(value, float) and value != value)
