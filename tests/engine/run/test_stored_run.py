"""What a run folder stores of a training, to resume it: every option as it was given."""

from dataclasses import replace
from pathlib import Path

import pytest

import zoo
from zoo.engine.plan.options import Options
from zoo.engine.run.resume import StoredRun, differences, resolve_engine, stored_run
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


OTHER = {"fp32": "bf16", "bf16": "fp32"}


@pytest.mark.parametrize("way", ["python", "command"])
def test_default_given_on_resume_is_a_difference(way, tinynet, image_folder, cli):
    options = {"data": str(image_folder), "weights": "none", "device": "cpu"}
    automatic = zoo.plan(tinynet, **options).precision
    options["precision"] = OTHER[automatic]
    plan = zoo.plan(tinynet, **options)
    stored_run(tinynet, Options(**options), plan, "0" * 32, load_registry()).write(Path("run"))
    if way == "python":
        with pytest.raises(zoo.UsageError) as refused:
            zoo.plan(resume="run", precision="auto")
        message = str(refused.value)
    else:
        code, _, message = cli("finetune", "--resume", "run", "--precision", "auto", "--dry-run")
        assert code == 2
    assert f"precision: {plan.precision}, now {automatic}" in message
    assert cli("finetune", "--resume", "run", "--dry-run")[0] == 0


def test_default_replaces_a_stored_option_only_where_given():
    stored = StoredRun("net", {"weights": "none", "keep": 3, "engine": "compile"}, (), {}, {}, "")
    kept = stored.complete(None, Options(weights=None))[1]
    assert (kept.weights, kept.keep, kept.engine) == ("none", 3, "compile")
    given = stored.complete(None, Options(weights="auto", keep=1, engine="auto"))[1]
    assert (given.weights, given.keep, given.engine) == ("auto", 1, "auto")
    plan = {"engine": "compile"}
    assert resolve_engine(given, replace(stored, plan=plan)) == "auto"
    assert resolve_engine(Options(engine="auto"), replace(stored, options={}, plan=plan)) == (
        "compile"
    )


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("none", "none"),
        ("imagenet", "imagenet"),
        ("own.pth", "{cwd}/own.pth"),
        ("run", "{cwd}/run"),
        (Path("none"), "{cwd}/none"),
    ],
)
def test_stored_weights_are_a_path_only_where_read_as_one(given, stored, image_folder):
    for name in ("none", "imagenet", "run", "lite0"):
        Path(name).mkdir()
    plan = zoo.plan("lite0", data=image_folder, weights="imagenet", device="cpu")
    options = Options(data=str(image_folder), weights=given)
    written = stored_run("lite0", options, plan, "0" * 32, load_registry())
    assert written.name == "lite0"
    assert written.options["weights"] == stored.format(cwd=Path.cwd())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("3h", 10800), ("1h30m", 5400), (2.5, 2.5)]
)
def test_time_limit_is_parsed(text, seconds):
    assert Options(time_limit=text).time_limit == seconds


@pytest.mark.parametrize("text", ["", "0", "3 days", "-1", "1h-3m"])
def test_malformed_time_limit_is_refused(text):
    with pytest.raises(zoo.UsageError, match="time-limit"):
        Options(time_limit=text)
