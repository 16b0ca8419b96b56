"""Outputs of every shape, normalised in one place."""

from collections import namedtuple

import pytest
import torch
from torch.nn.functional import cross_entropy

import zoo
from zoo.tasks.classification.outputs import classification_loss, read_output

MAIN, AUX, LABELS = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
HEADS = (zoo.Head("fc"), zoo.Head("aux.fc", role="aux", loss_weight=0.4, output="aux_logits"))


def test_a_tensor_is_main():
    said = read_output(MAIN, HEADS, training=True)
    assert said.main is MAIN
    assert said.auxiliary == ()


def test_named_tuples_are_read_by_name_and_weighed_in_training_only():
    output = namedtuple("Output", "logits aux_logits")(MAIN, AUX)
    said = read_output(output, HEADS, training=True)
    expected = cross_entropy(MAIN, LABELS) + 0.4 * cross_entropy(AUX, LABELS)
    assert torch.equal(sum(classification_loss(said, LABELS).values()), expected)
    assert read_output(output, HEADS, training=False).auxiliary == ()


def test_googlenet_order_does_not_matter():
    heads = (
        zoo.Head("fc"),
        zoo.Head("aux1.fc2", role="aux", loss_weight=1.0, output="aux_logits1"),
        zoo.Head("aux2.fc2", role="aux", loss_weight=2.0, output="aux_logits2"),
    )
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    output = namedtuple("Output", "logits aux_logits2 aux_logits1")(MAIN, second, first)
    extra = read_output(output, heads, training=True).auxiliary
    assert extra[0][0] is first
    assert extra[1][0] is second
    assert [weight for _, weight in extra] == [1.0, 2.0]


def test_distilled_pairs_are_averaged_in_evaluation():
    heads = (zoo.Head("head", output=0), zoo.Head("head_dist", role="distill", output=1))
    assert torch.equal(read_output((MAIN, AUX), heads, training=False).main, (MAIN + AUX) / 2)
    said = read_output((MAIN, AUX), heads, training=True)
    assert said.main is MAIN
    assert said.auxiliary[0][0] is AUX


def test_mappings():
    assert read_output({"logits": MAIN, "aux_logits": AUX}, HEADS, training=True).auxiliary


def test_an_auxiliary_head_of_the_wrong_width_is_an_error():
    output = namedtuple("Output", "logits aux_logits")(MAIN, torch.randn(4, 1000))
    with pytest.raises(zoo.BrokenBackbone, match=r"\(4, 1000\) beside \(4, 3\)"):
        read_output(output, HEADS, training=True)


@pytest.mark.parametrize("output", [None, "logits", (), torch.zeros(2, 3, 4, 4)])
def test_what_is_no_logits_is_refused(output):
    with pytest.raises(zoo.BrokenBackbone, match="not logits"):
        read_output(output, HEADS, training=False)


def test_a_head_that_was_left_behind_is_told_from_an_embedding():
    nine = torch.randn(4, 9)
    assert read_output((MAIN, nine), HEADS, training=True, previous=7).auxiliary == ()
    assert read_output((MAIN, nine), HEADS, training=False, previous=9).main is MAIN
    with pytest.raises(zoo.BrokenBackbone, match="output 1 still has 9 classes, the main one 3"):
        read_output((MAIN, nine), HEADS, training=True, previous=9)
    named = namedtuple("Output", "logits aux")(MAIN, nine)
    with pytest.raises(zoo.BrokenBackbone, match="output 'aux' still"):
        read_output(named, HEADS, training=True, previous=9)
