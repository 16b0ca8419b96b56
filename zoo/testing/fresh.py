"""Load a model file in a fresh process.

`python -m zoo.testing.fresh MODEL BATCH LOGITS REGISTRY` loads a model file, reads a batch from a
safetensors file, and writes the logits to another. REGISTRY is JSON, the arguments of
`load_registry`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.testing.findings import CheckFailed

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.inference.predictor import Predictor


def logits_of(model: Predictor, images: Tensor) -> Tensor:
    """Return the main outputs of a loaded model for images.

    Args:
        model: as returned by `zoo.load`.
        images: `[images, channels, height, width]`, uint8.
    """
    import torch

    from zoo.engine.runtime.network import Network
    from zoo.models.freeze import inference_mode_of

    assert model.card is not None
    network = Network(
        model.module,
        model.card.heads,
        model.preprocess,
        torch.device("cpu"),
        model.card.precision,
        model.network.task,
    )
    with inference_mode_of(model.module):
        return network.forward(images).main


def through_files(run: Callable[[list[str]], str | None]) -> Callable[[Path, Tensor], Tensor]:
    """Return a function that computes the logits of a model file and a batch in another process.

    Args:
        run: called with the paths of model, batch and logits; runs `write_logits` with them in
            another process, and returns a problem or None.
    """

    def load(path: Path, images: Tensor) -> Tensor:
        from safetensors.torch import load_file, save_file

        with tempfile.TemporaryDirectory(prefix="zoo-testing-") as folder:
            batch, logits = Path(folder) / "batch", Path(folder) / "logits"
            save_file({"images": images}, batch)
            if problem := run([str(path), str(batch), str(logits)]):
                raise CheckFailed(f"a fresh process cannot load the model file: {problem}")
            return load_file(logits)["logits"]

    return load


def in_fresh_process(
    without: Sequence[str] = (),
    file: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> Callable[[Path, Tensor], Tensor]:
    """Return a function that computes the logits of a model file and a batch in a subprocess.

    Args:
        without: plugins that the subprocess does not load.
        file: registry file that it reads.
        plugins: python files that it loads as plugins.
    """
    registry = json.dumps(
        [
            list(without),
            str(file) if file else None,
            [str(Path(path).absolute()) for path in plugins],
        ]
    )

    def run(paths: list[str]) -> str | None:
        import torch

        command = [sys.executable, "-m", __name__, *paths, registry]
        # The same number of threads, because it changes the order of summation.
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return lines[-1] if done.returncode else None

    return through_files(run)


def write_logits(
    paths: Sequence[str], without: Sequence[str], file: str | None, plugins: Sequence[str]
) -> None:
    """Load a model file, and write its logits of a batch.

    Args:
        paths: of the model file, of a safetensors file with `images`, and of one to write with
            `logits`.
        without: as of `load_registry`.
        file: as of `load_registry`.
        plugins: as of `load_registry`.
    """
    from safetensors.torch import load_file, save_file

    from zoo.inference.loading import load_model
    from zoo.registry.registry import load_registry

    path, batch, out = paths
    model = load_model(path, load_registry(without, file, plugins), device="cpu")
    logits = logits_of(model, load_file(batch)["images"])
    save_file({"logits": logits.contiguous()}, out)  # may be channels-last


if __name__ == "__main__":
    *names, arguments = sys.argv[1:]
    write_logits(names, *json.loads(arguments))
