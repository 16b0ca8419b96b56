"""Resuming from damaged checkpoints: the one before is taken, or one line names the damage."""

import json
from pathlib import Path

import pytest

import zoo
from tests.engine.run.interrupting import InterruptingLoss

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.mark.parametrize("how", ["flip", "truncate", "missing", "manifest", "state"])
def test_damaged_checkpoint_is_moved_aside_and_the_one_before_is_taken(
    how, interrupted, tinynet, capsys
):
    folder, options = interrupted
    _, newest = sorted(folder.glob("checkpoints/checkpoint-*"))
    damage(newest, how)
    run = zoo.finetune(resume=folder, loss=InterruptingLoss(), quiet=False)
    err = capsys.readouterr().err
    assert (
        f"moved to {folder / 'checkpoints' / newest.name.replace('checkpoint', 'damaged')}" in err
    )
    whole = zoo.finetune(tinynet, **options, loss=InterruptingLoss(), out="whole")
    assert run.record["sha256"] == whole.record["sha256"]


def damage(checkpoint: Path, how: str) -> None:
    tensors = checkpoint / "state.safetensors"
    data = bytearray(tensors.read_bytes())
    if how == "flip":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif how == "truncate":
        tensors.write_bytes(data[:-100])
    elif how == "missing":
        tensors.unlink()
    elif how == "manifest":
        (checkpoint / "manifest.json").write_text("{")
    else:
        (checkpoint / "state.json").write_text("{}")


def test_training_whose_checkpoints_are_all_damaged_stops(interrupted):
    folder, _ = interrupted
    for checkpoint in folder.glob("checkpoints/checkpoint-*"):
        damage(checkpoint, "flip")
    with pytest.raises(zoo.WeightsError, match=r"all checkpoints in .* are damaged") as caught:
        zoo.finetune(resume=folder, loss=InterruptingLoss())
    assert len([*folder.glob("checkpoints/damaged-*")]) == 2
    assert caught.value.exit_code == 4


def test_damaged_record_is_named_and_written_again(interrupted):
    folder, _ = interrupted
    record = folder / "run.json"
    record.write_text("{")
    with pytest.raises(zoo.WeightsError, match=r"run/run\.json is damaged") as caught:
        zoo.finetune(resume=folder, loss=InterruptingLoss())
    assert caught.value.hint == "remove it, and `zoo finetune --resume run` writes it again"
    # With more epochs it goes on; its failures are not hidden by that of reading the record.
    with pytest.raises(KeyboardInterrupt) as stopped:
        zoo.finetune(resume=folder, epochs=4, override=True, loss=InterruptingLoss(2))
    assert stopped.value.__notes__ == ["resume it with `zoo finetune --resume run`"]
    record.unlink()
    run = zoo.finetune(resume=folder, loss=InterruptingLoss())
    assert json.loads(record.read_text())["sha256"] == run.record["sha256"]


def test_damaged_plan_is_refused(interrupted):
    folder, _ = interrupted
    plan = folder / "checkpoints" / "plan.json"
    stored = json.loads(plan.read_text())
    for text in ("{", "[]", json.dumps({**stored, "options": {"lr": "x"}}), '{"format": 9}'):
        plan.write_text(text)
        with pytest.raises(zoo.WeightsError, match=r"plan\.json"):
            zoo.finetune(resume=folder, loss=InterruptingLoss())
