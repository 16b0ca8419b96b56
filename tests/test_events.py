"""Events as plain data: `as_dict`, json, `dataclasses.asdict`, copies."""

import copy
import dataclasses
import json
import math
import pickle
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

import zoo
from zoo.events import Event

PLAN = {"seed": 0, "classes": ("a", "b"), "phases": ({"lr": 0.1, "epochs": 2},), "views": None}
STARTED = zoo.FitStarted("a/b", PLAN, "/run", run_id="12", world=2)


def test_json_and_asdict_accept_an_event():
    listed = {**PLAN, "classes": ["a", "b"], "phases": [{"lr": 0.1, "epochs": 2}]}
    whole = {"run_id": "12", "rank": 0, "world": 2, "backbone": "a/b", "folder": "/run"}
    whole["earlier_epochs"] = 0
    assert json.loads(json.dumps(STARTED.plan)) == listed
    assert dataclasses.asdict(STARTED) == {**whole, "plan": PLAN}
    assert json.loads(json.dumps(dataclasses.asdict(STARTED))) == {**whole, "plan": listed}
    assert STARTED.as_dict() == {**whole, "plan": listed}


def test_as_dict_is_a_copy_to_change():
    plain = STARTED.as_dict()
    plain["plan"]["phases"][0]["lr"] = 7
    plain["plan"]["classes"].append("c")
    assert STARTED.plan == PLAN


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]], np.uint8), [[1, 2]]),
        (torch.tensor([1.5]), [1.5]),
        (np.bool_(True), True),
        (float("nan"), None),
        (np.array([math.inf, 1.0]), [None, 1.0]),
        ({"b", "a"}, ["a", "b"]),
        ({3: {None: (1, 2)}}, {"3": {"None": [1, 2]}}),
        (PurePosixPath("/x/y"), "/x/y"),
        (None, None),
    ],
)
def test_as_dict_is_ready_for_json(value, expected):
    event = zoo.EpochEnded("head", 1, 1, 0.1, 0.2, {"m": value}, best=True, seconds=1.0)
    metric = json.loads(json.dumps(event.as_dict(), allow_nan=False))["metrics"]["m"]
    assert metric == expected
    assert type(metric) is type(expected)


def test_first_batch_as_dict():
    images = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    event = zoo.FirstBatchRead(images, np.array([1]), {"classes": ["a", "b"]})
    plain = json.loads(json.dumps(event.as_dict()))
    assert plain["images"] == images.tolist()
    assert plain["targets"] == [1]
    assert plain["schema"] == {"classes": ["a", "b"]}


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))]
)
def test_copied_event_is_equal_and_frozen(duplicate):
    again = duplicate(STARTED)
    assert again == STARTED
    assert type(again) is zoo.FitStarted
    with pytest.raises(TypeError, match="as_dict"):
        again.plan["phases"][0]["lr"] = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.__setitem__("seed", 1),
        lambda plan: plan.__delitem__("seed"),
        lambda plan: plan.__ior__({"seed": 1}),
        lambda plan: plan.update(seed=1),
        lambda plan: plan.setdefault("new", 1),
        lambda plan: plan.pop("seed"),
        lambda plan: plan.popitem(),
        lambda plan: plan.clear(),
    ],
)
def test_every_change_of_a_mapping_is_refused(change):
    with pytest.raises(TypeError, match="immutable"):
        change(STARTED.plan)
    assert STARTED.plan == PLAN


def test_every_event_has_the_common_fields():
    kinds = [kind for kind in vars(zoo.events).values() if isinstance(kind, type)]
    events = [kind for kind in kinds if issubclass(kind, Event)]
    assert len(events) > 5
    for kind in events:
        assert {"run_id", "rank", "world"} <= {each.name for each in dataclasses.fields(kind)}


def test_events_are_deeply_frozen():
    inside = {("odd", 1): [1, {2: {"deep": [{3}]}}], None: bytearray(b"abc"), 5: {"a"}}
    event = zoo.FitStarted("a/b", inside, "/run")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.folder = "/other"
    with pytest.raises(TypeError):
        event.plan["new"] = 1
    one, two = event.plan[("odd", 1)]
    with pytest.raises(TypeError):
        two[2]["deep"] = ()
    inside[("odd", 1)][1][2]["deep"][0].add(4)
    inside[None][0] = 0
    inside[5].add("b")
    assert one == 1
    assert two[2]["deep"] == (frozenset({3}),)
    assert event.plan[None] == b"abc"
    assert event.plan[5] == frozenset({"a"})
