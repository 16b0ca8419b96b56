"""What a run folder stores of a training, to resume it: every option as it was given."""

from pathlib import Path

import pytest

import zoo
from zoo.engine.plan.options import Options
from zoo.engine.run.resume import StoredRun, differences, stored_run
from zoo.registry.registry import load_registry


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


GIVEN = {
    "classes": 3,
    "val": 0.25,
    "columns": "image=file name,label=x",
    "group_by": "(p[0-9]+)_",
    "augment": "flip,crop",
    "views": 3,
    "bad_images": "skip",
    "head": "linear",
    "crop": "squash",
    "interpolation": "bicubic",
    "recipe": "head-then-all",
    "epochs": (2, 3),
    "lr": (0.1, 0.01),
    "optimizer": "adam",
    "schedule": "cosine",
    "class_weights": {'a,"b"': 2.0, "c": 0.5},
    "label_smoothing": 0.1,
    "patience": 2,
    "cache_images": True,
    "weights": "none",
    "seed": 3,
}


def test_stored_options_are_read_back_as_given(tinynet, image_folder):
    given = Options(data=str(image_folder), **GIVEN)
    plan = zoo.plan(tinynet, data=image_folder, weights="none")
    stored_run(tinynet, given, plan, "0" * 32, load_registry()).write(Path("run"))
    stored = StoredRun.read(Path("run"))
    assert stored.omitted == ()
    assert stored.complete(None, Options()) == (tinynet, given)
    assert differences(stored.plan, plan) == {}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("3h", 10800), ("1h30m", 5400), (2.5, 2.5)]
)
def test_time_limit_is_parsed(text, seconds):
    assert Options(time_limit=text).time_limit == seconds


@pytest.mark.parametrize("text", ["", "0", "3 days", "-1", "1h-3m"])
def test_malformed_time_limit_is_refused(text):
    with pytest.raises(zoo.UsageError, match="time-limit"):
        Options(time_limit=text)
