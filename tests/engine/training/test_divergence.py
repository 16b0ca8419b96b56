"""A loss that is not finite: the step that is named, and when it is found."""

import math

import pytest
import torch

import zoo
from zoo.engine.plan.plan import Phase
from zoo.engine.training.divergence import INTERVAL, DivergenceCheck, StepRecord, batch_tensors
from zoo.options import Policy, Schedule

PHASE = Phase("all", Policy("all"), 2, "sgd", 0.25, 0.9, 0.01, Schedule("cosine"), False)
CPU = torch.device("cpu")


def taken(step, loss):
    return StepRecord(step=step, batch=step + 1, lr=step / 8, loss=torch.tensor(loss))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_not_finite_names_step_rate_and_saved_batch(loss):
    saved = []

    def save_batch(number):
        saved.append(number)
        return "run/batch.safetensors"

    check = DivergenceCheck(PHASE, 2, CPU, save_batch=save_batch)
    check.add(taken(1, 1.0))
    with pytest.raises(zoo.Diverged) as caught:
        check.add(taken(2, loss))
    assert caught.value.message == (
        f"the training loss became {loss} in step 2 of epoch 2 of all, at a learning rate of "
        "0.25; its batch is in run/batch.safetensors"
    )
    assert caught.value.hint == "give a lower --lr (it was 0.25)"
    assert saved == [3]


def test_accelerator_is_checked_in_intervals_and_on_demand():
    """Losses are on the CPU: only the interval depends on the device."""
    check = DivergenceCheck(PHASE, 1, torch.device("meta"))
    for step in range(1, INTERVAL):
        check.add(taken(step, math.nan if step > 2 else 1.0))
    with pytest.raises(zoo.Diverged, match="in step 3 of epoch 1"):
        check.add(taken(INTERVAL, 1.0))
    check.add(taken(INTERVAL + 1, math.inf))
    with pytest.raises(zoo.Diverged, match=f"became inf in step {INTERVAL + 1} of") as caught:
        check.check()
    assert "its batch" not in caught.value.message
    check.check()  # nothing is left to check


@pytest.mark.parametrize(
    ("train_loss", "values", "message"),
    [
        (math.nan, {}, "the training loss became nan in epoch 2 of all"),
        (1.0, {"loss": math.inf, "images": 3}, "the validation loss became inf in epoch 2 of all"),
    ],
)
def test_epoch_with_a_loss_not_finite_has_diverged(train_loss, values, message):
    check = DivergenceCheck(PHASE, 2, CPU)
    with pytest.raises(zoo.Diverged, match=message):
        check.check_epoch(8, train_loss, values)


@pytest.mark.parametrize(("images", "val", "split"), [(0, 4, "train"), (8, 0, "val")])
def test_epoch_without_readable_images_is_an_error_of_the_data(images, val, split):
    check = DivergenceCheck(PHASE, 1, CPU)
    with pytest.raises(zoo.DataError, match=f"no image of the {split} split can be read"):
        check.check_epoch(images, 1.0, {"loss": 1.0, "images": val})
    check.check_epoch(8, 1.0, {"loss": 1.0, "images": 4})
    check.check_epoch(8, 1.0, {})


def test_batch_of_several_inputs_is_saved_by_their_names():
    image, depth, targets = torch.zeros(2, 3), torch.ones(2), torch.tensor([0, 1])
    assert batch_tensors(image, targets) == {"inputs": image, "targets": targets}
    several = batch_tensors({"image": image, "depth": depth}, targets)
    assert several == {"image": image, "depth": depth, "targets": targets}
