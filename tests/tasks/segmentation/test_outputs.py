"""Reading and combining segmentation logits, and the loss on labelled pixels."""

import math

import pytest
import torch
from torch import nn

from zoo.errors import BrokenBackbone, UsageError
from zoo.spec import Head
from zoo.tasks.base import Outputs
from zoo.tasks.segmentation.outputs import combine_heads, read_output, segmentation_loss
from zoo.tasks.segmentation.task import SemanticSegmentation

MAIN = Head("classifier[4]", output="out")
AUX = Head("aux[4]", role="aux", loss_weight=0.5, output="aux")


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def masks(count: int, classes: int, side: int, ignored: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    drawn = torch.randint(classes, (count, side, side), generator=generator)
    drawn[torch.rand(drawn.shape, generator=generator) < ignored] = 255
    return drawn.to(torch.uint8)


def pixel_loss(output: torch.Tensor, target: torch.Tensor) -> float:
    """Return the mean over labelled pixels of minus the log of the softmax, pixel by pixel."""
    total, count = 0.0, 0
    for image, mask in zip(output.double(), target, strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                label, values = int(mask[row, column]), image[:, row, column]
                if label != 255:
                    total += math.log(values.exp().sum()) - float(values[label])
                    count += 1
    return total / count


def test_read_output_selects_heads_by_name():
    output = {"aux": logits(2, 3, 4, 4), "out": logits(2, 3, 4, 5)[..., :4]}
    read = read_output(output, (MAIN, AUX), training=True)
    assert read.main is output["out"]
    assert [(tensor is output["aux"], weight) for tensor, weight in read.auxiliary] == [(True, 0.5)]
    assert read_output(output, (MAIN, AUX), training=False).auxiliary == ()
    assert read_output(output["out"], (Head("head"),), training=True).main is output["out"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((1, 2), "a tuple, not logits"),
        ({"aux": torch.zeros(1)}, r"the outputs \['aux'\]"),
        (torch.zeros(2, 3), r"\(2, 3\), not logits"),
        ({"out": logits(2, 5, 4, 4), "aux": logits(2, 21, 4, 4)}, "output 'aux' is .2, 21"),
    ],
)
def test_read_output_rejects_non_segmentation_logits(output, message):
    with pytest.raises(BrokenBackbone, match=message):
        read_output(output, (MAIN, AUX), training=True, previous=21)
    if isinstance(output, dict) and "out" in output:
        with pytest.raises(BrokenBackbone, match="not replaced"):
            read_output(output, (MAIN,), training=True, previous=21)


def test_combine_heads_sums_and_interpolates():
    low, high, aux = logits(2, 3, 4, 4), logits(2, 3, 4, 4) * 2, logits(2, 3, 2, 2)
    heads = {"low": (Head("low"), low), "high": (Head("high"), high), "aux": (AUX, aux)}
    both = combine_heads(heads, (8, 6), training=True)
    expected = nn.functional.interpolate(low + high, (8, 6), mode="bilinear", align_corners=False)
    assert torch.equal(both.main, expected)
    assert both.auxiliary[0][0].shape == (2, 3, 8, 6)
    assert combine_heads(heads, (8, 6), training=False).auxiliary == ()


def test_loss_is_mean_over_labelled_pixels():
    main, aux, target = logits(2, 3, 5, 5), logits(2, 3, 6, 5)[:, :, :5], masks(2, 3, 5)
    parts = segmentation_loss(Outputs(main, ((aux, 0.5),)), target)
    assert parts["main"].item() == pytest.approx(pixel_loss(main, target), rel=1e-5)
    assert parts["auxiliary1"].item() == pytest.approx(0.5 * pixel_loss(aux, target), rel=1e-5)


@pytest.mark.parametrize("criterion", [None, nn.CrossEntropyLoss(ignore_index=255)])
def test_loss_without_labelled_pixels_is_zero(criterion):
    main = logits(2, 3, 5, 5).requires_grad_()
    target = torch.full((2, 5, 5), 255, dtype=torch.uint8)
    loss = segmentation_loss(Outputs(main), target, criterion)["main"]
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(main.grad, torch.zeros_like(main))


def test_user_loss_with_class_weights():
    main, target = logits(2, 3, 5, 5).requires_grad_(), masks(2, 3, 5)
    weight = torch.tensor([1.0, 5.0, 0.5])
    criterion = nn.CrossEntropyLoss(weight, ignore_index=255)
    (loss,) = segmentation_loss(Outputs(main), target, criterion).values()
    assert loss.item() == pytest.approx(criterion(main, target.long()).item())
    with pytest.raises(UsageError, match="ignore_index=-100") as caught:
        segmentation_loss(Outputs(main), target, nn.CrossEntropyLoss(weight))
    assert "give ignore_index=255" in str(caught.value)
    with pytest.raises(UsageError, match="the loss fails"):
        segmentation_loss(Outputs(main), target, lambda output, target: output + "")
    with pytest.raises(UsageError, match="the loss returned shape"):
        segmentation_loss(Outputs(main), target, lambda output, target: output)


def test_micro_batch_losses_weighted_by_pixels_equal_batch():
    task = SemanticSegmentation()
    main, target = logits(3, 4, 6, 6), masks(3, 4, 6)
    target[0, :5] = 255
    whole = task.loss(Outputs(main), target)["main"]
    parts = sum(
        task.loss(Outputs(main[n : n + 1]), target[n : n + 1])["main"]
        * (task.count(target[n : n + 1]) / task.count(target))
        for n in range(3)
    )
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    assert task.count(target) == int((target != 255).sum())
