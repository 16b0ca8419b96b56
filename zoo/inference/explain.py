"""Write where a network looks: an image with the activation map of its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from zoo.data.activation_overlay import blend_map
from zoo.data.formats import EXPLAIN
from zoo.data.images import PreparedImage
from zoo.data.png_files import encode_png, source_id, unused_paths
from zoo.engine.features.activation_maps import SpatialMap, activation_maps, find_map
from zoo.engine.runtime.network import Network
from zoo.errors import UsageError
from zoo.files import write_bytes
from zoo.options.given import FilePath
from zoo.tasks.base import Outputs

# Longer side of what is written, in pixels.
LARGEST = 1024


class Explainer:
    """Writes activation maps of predicted images.

    Args:
        network: that predicts.
        folder: to write into; True for that of each image.
    """

    def __init__(self, network: Network, folder: FilePath | bool) -> None:
        self.network = network
        self.folder = None if isinstance(folder, bool) else Path(folder)
        self.map: SpatialMap | None = None

    def write(
        self, images: Sequence[PreparedImage], pixels: Tensor, outputs: Outputs
    ) -> list[Path | None]:
        """Write an image for each image of a batch, and return the paths.

        None for an image that is not a file, where each would be written beside its image.

        Args:
            images: of the batch.
            pixels: `[images, channels, height, width]`, of the network's input.
            outputs: of the network.

        Raises:
            UsageError: the task or the network has no activation maps.
            EnvironmentProblem: a file cannot be written.
        """
        chosen = self.network.task.explained_outputs(outputs)
        if chosen is None:
            message = f"predictions of {self.network.task.name} have no activation maps"
            raise UsageError(message, "omit --explain")
        if self.map is None:
            self.map = find_map(self.network, pixels[:1], int(chosen[0]))
        maps = activation_maps(self.network, pixels, chosen, self.map)
        return [self._write(image, values) for image, values in zip(images, maps, strict=True)]

    def _write(self, image: PreparedImage, values: Tensor) -> Path | None:
        source = source_id(image.name)
        if self.folder is None:
            if source is None:
                return None
            path = Path(f"{image.name}{EXPLAIN}.png")
        else:
            name = Path(image.name).name or "image"
            (path,) = unused_paths(self.folder, name, (f"{EXPLAIN}.png",), source)
        shown = image.open()
        shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        blended = blend_map(shown, values, image.size, image.preprocess)
        write_bytes(path, encode_png(blended, source))
        return path
