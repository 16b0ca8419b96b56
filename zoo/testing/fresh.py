"""Loading a model file where nothing of this process is left.

`python -m zoo.testing.fresh MODEL BATCH LOGITS REGISTRY` loads a model file, runs the batch that
one tensor file holds through it, and writes the logits into another. REGISTRY is JSON: what
`load_registry` is called with.
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

from zoo.testing.findings import Broken

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.inference.predictor import Predictor


def logits_of(model: Predictor, images: Tensor) -> Tensor:
    """Return the main outputs of a loaded model for images.

    Args:
        model: as `zoo.load` gives it.
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


def in_fresh_process(
    without: Sequence[str] = (), file: Path | None = None, plugins: Sequence[Path] = ()
) -> Callable[[Path, Tensor], Tensor]:
    """Return a function of a model file and a batch that gives its logits in another process.

    Args:
        without: plugins that are left out there.
        file: a registry file that is read there.
        plugins: python files that are loaded as plugins there.
    """
    registry = json.dumps(
        [list(without), str(file) if file else None, [str(path.absolute()) for path in plugins]]
    )

    def load(path: Path, images: Tensor) -> Tensor:
        import torch
        from safetensors.torch import load_file, save_file

        with tempfile.TemporaryDirectory(prefix="zoo-testing-") as folder:
            batch, logits = Path(folder) / "batch", Path(folder) / "logits"
            save_file({"images": images}, batch)
            command = [sys.executable, "-m", __name__, str(path), str(batch), str(logits), registry]
            # As many threads as here, since sums depend on how they are cut up.
            threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
            environment = {**os.environ, **threads}
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["it ends"])[-1]
                raise Broken(f"a fresh process does not load the model file: {said}")
            return load_file(logits)["logits"]

    return load


def main(arguments: list[str]) -> None:
    """Load, run and write, as the module says."""
    from safetensors.torch import load_file, save_file

    from zoo.inference.loading import load_model
    from zoo.registry.registry import load_registry

    path, batch, out, asked = arguments
    without, file, plugins = json.loads(asked)
    model = load_model(path, load_registry(without, file, plugins), device="cpu")
    logits = logits_of(model, load_file(batch)["images"])
    save_file({"logits": logits.contiguous()}, out)  # may be channels-last


if __name__ == "__main__":
    main(sys.argv[1:])
