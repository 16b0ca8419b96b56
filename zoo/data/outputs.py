"""Check paths of files to write: what a user reads from is not replaced by mistake."""

from __future__ import annotations

from pathlib import Path

from zoo.data.formats import may_be_image
from zoo.errors import UsageError

WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".onnx")


def check_output(path: Path, flag: str, example: str) -> None:
    """Refuse to replace an image, or weights, by an output of another kind.

    `--csv *.jpg`, expanded by a shell, names the first image as the table.

    Args:
        path: to write.
        flag: of the option that names it.
        example: name of such an output, for the hint.

    Raises:
        UsageError: it is an existing file with the suffix of an image or of weights.
    """
    image = may_be_image(path.name)
    if (image or path.suffix.lower() in WEIGHTS) and path.is_file():
        kind = "an image" if image else "a file of weights"
        raise UsageError(f"{flag} {path} is {kind}, and would be replaced", f"give {example}")
