"""What a format is: how a network is written, and how what was written is run."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import BrokenBackbone, EnvironmentProblem, ZooError
from zoo.inference.predictor import Predictor
from zoo.models.plugin_errors import is_out_of_memory

# Images `[images, height, width, 3]` uint8 to outputs by name.
Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Source:
    """A network to export.

    Args:
        model: on the CPU, in float32.
        name: short, for titles.
        description: of the network, as plain data: `backbone`, `task`, `classes`, `preprocess`,
            `temperature`, `license`, `sha256` of its file, and `versions`.
    """

    model: Predictor
    name: str
    description: Mapping[str, Any]


class Exporter(ABC):
    """Writes networks in a format; stateless.

    Attributes:
        suffix: of the file, such as `.onnx`; empty for a folder.
        requires: distributions that must be installed.
        extra: of zoo-registry, which installs them.
    """

    suffix: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""

    @abstractmethod
    def write(self, source: Source, path: Path) -> Mapping[str, Any]:
        """Write a network.

        Args:
            source: the network.
            path: of the file or the folder, which does not exist. It is temporary: the result is
                renamed after it is checked.

        Returns:
            What there is to know of the result, as plain data for `zoo export --json`.

        Raises:
            BrokenBackbone: the format cannot express the network; states why.
            UsageError: the format does not apply to the network; states why.
        """

    @abstractmethod
    def load(self, source: Source, path: Path) -> Run:
        """Return a function that runs what was written as a user of it would.

        Args:
            source: the network.
            path: of the file or the folder.
        """

    def check_installed(self) -> None:
        """Check that what the format needs is installed.

        Raises:
            EnvironmentProblem: names what is missing.
        """
        missing = [name for name in self.requires if not _is_installed(name)]
        if missing:
            command = f"pip install 'zoo-registry[{self.extra}]'"
            hint = command if self.extra else f"pip install {' '.join(missing)}"
            verb = "is" if len(missing) == 1 else "are"
            raise EnvironmentProblem(f"{' and '.join(missing)} {verb} not installed", hint)


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


@contextlib.contextmanager
def conversion_errors(what: str, hint: str) -> Iterator[None]:
    """Convert exceptions of libraries that convert a network to one line.

    Args:
        what: the failed operation, the start of the message.
        hint: what to do instead.

    Raises:
        BrokenBackbone: the block raised anything but a `ZooError`, an error of the system, or an
            out-of-memory error.
    """
    try:
        yield
    except (ZooError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise BrokenBackbone(f"{what}: {_reason(error)}", hint) from error


def _reason(error: BaseException) -> str:
    """Return the reason of the innermost error: its first line, or item of OpenVINO's summary."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line[3:] for line in lines if line.startswith("-- ")), next(iter(lines), ""))
    text = text if len(text) <= 200 else f"{text[:197]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
