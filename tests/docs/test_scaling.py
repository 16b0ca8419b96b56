"""docs/scaling.md: the commands for shards, as far as one machine without a GPU runs them."""

import os
import re
import shutil
import subprocess

import pytest

from tests.docs.passages import read_page
from tests.inference.shards import labelled, write_shards

TEXT = read_page("scaling.md").path.read_text(encoding="utf-8")
SECTION = TEXT.partition("\n## Shards\n")[2].partition("\n## ")[0]
SHELL = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def scaling_folder(tmp_path, monkeypatch, image_folder):
    """A folder with `shards/` and `cat.jpg`."""
    monkeypatch.chdir(tmp_path)
    samples = labelled(image_folder)
    write_shards(tmp_path / "shards", samples, 6)
    (tmp_path / "cat.jpg").write_bytes(samples[0][1])
    return tmp_path


def sh(script, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(["sh", "-ec", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_scaling_page_jobs_compute_the_same_features(scaling_folder):
    alone, array, gpus = SHELL
    assert "flag" in sh(alone)
    expected = contents(scaling_folder / "features")
    assert len(expected) == 4
    shutil.rmtree(scaling_folder / "features")
    for task in ("1", "2"):
        sh(array, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2")
    assert contents(scaling_folder / "features") == expected
    shutil.rmtree(scaling_folder / "features")
    sh(gpus.replace(" --device cuda:$LOCAL_RANK", "").replace("per-node 4", "per-node 2"))
    assert contents(scaling_folder / "features") == expected


@pytest.mark.scale
def test_scaling_page_ray_computes_features(scaling_folder):
    ray = pytest.importorskip("ray", reason="`--group scale` installs it")
    pandas = pytest.importorskip("pandas")
    script = f"import ray\nray.init(num_cpus=3, include_dashboard=False)\n{PYTHON[0]}"
    (scaling_folder / "job.py").write_text(script)
    sh("python job.py")
    rows = pandas.read_parquet(scaling_folder / "features-ray")
    assert ray.__version__.startswith("2.60")
    assert len(rows) == 24
    assert rows["readable"].all()
    assert len(rows["features"][0]) == 1280


def test_scaling_page_spark_maps_data_frames(scaling_folder):
    pandas = pytest.importorskip("pandas", reason="`--group scale` installs it")

    class Images:
        """The part of Spark's data frame that the page uses, without Spark."""

        def select(self, *names):
            assert names == ("path", "content")
            return self

        def mapInPandas(self, function, schema):
            assert schema == "path string, features array<float>"
            frame = pandas.DataFrame(
                {"path": ["cat.jpg"], "content": [(scaling_folder / "cat.jpg").read_bytes()]}
            )
            return list(function(iter([frame])))

    names = {"images": Images()}
    exec("import zoo\n" + PYTHON[1], names)
    (found,) = names["features"]
    assert list(found.columns) == ["path", "features"]
    assert len(found["features"][0]) == 1280
