"""`zoo.FeatureExtractor` in the workers of Ray, one of which is killed."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import zoo
from tests.inference.shards import labelled, write_shards
from tests.processes import started

pytestmark = pytest.mark.scale

# As in docs/scaling.md, but for the worker that kills its process once.
JOB = """
import os, signal, sys
from pathlib import Path

import numpy as np
import ray
import zoo

pattern, out, killed = sys.argv[1:]


class Extractor(zoo.FeatureExtractor):
    def __call__(self, batch):
        if self.images:
            try:
                Path(killed).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        batch["worker"] = np.full(len(batch["__key__"]), os.getpid())
        return super().__call__(batch)


ray.init(num_cpus=3, include_dashboard=False, logging_level="error")
ray.data.DataContext.get_current().enable_progress_bars = False
shards = ray.data.read_webdataset(sorted(map(str, Path().glob(pattern))), decoder=None)
features = shards.map_batches(
    Extractor,
    fn_constructor_args=("lite0",),
    fn_constructor_kwargs={"column": "jpg", "device": "cpu", "engine": "torch"},
    batch_size=4,
    concurrency=2,
)
rows = features.take_all()
np.savez(
    out,
    keys=[row["__key__"] for row in rows],
    features=np.stack([row["features"] for row in rows]),
    workers=[row["worker"] for row in rows],
)
ray.shutdown()
"""


def test_ray_has_the_bytes_of_zoo_embed(image_folder, tmp_path, shared_cache):
    numpy = pytest.importorskip("numpy")
    pytest.importorskip("ray", reason="`--group scale` installs it")
    samples = labelled(image_folder)
    write_shards(tmp_path / "shards", samples, 6)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    command = [sys.executable, str(script), "shards/*.tar", "rows.npz", str(tmp_path / "killed")]
    with started(command, cwd=tmp_path, env=environment) as process:
        assert process.wait(timeout=400) == 0
    assert (tmp_path / "killed").exists()
    rows = numpy.load(tmp_path / "rows.npz")
    found = dict(zip(rows["keys"].tolist(), rows["features"], strict=True))
    assert len(rows["keys"]) == len(found) == len(samples)
    assert len(set(rows["workers"].tolist())) >= 2
    zoo.embed("lite0", str(tmp_path / "shards/*.tar"), tmp_path / "features", device="cpu")
    for path in sorted(Path(tmp_path / "features").iterdir()):
        with safe_open(path, "pt") as file:
            keys = json.loads(file.metadata()["zoo"])["paths"]
        expected = load_file(path)["features"]
        assert torch.equal(torch.from_numpy(numpy.stack([found[key] for key in keys])), expected)
