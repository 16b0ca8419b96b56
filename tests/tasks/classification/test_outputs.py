"""Reading logits from outputs of every structure."""

from collections import namedtuple

import pytest
import torch
from torch.nn.functional import cross_entropy

import zoo
from zoo.tasks.classification.outputs import classification_loss, read_output

MAIN, AUX, LABELS = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
HEADS = (zoo.Head("fc"), zoo.Head("aux.fc", role="aux", loss_weight=0.4, output="aux_logits"))


def test_read_output_of_tensor_is_main():
    outputs = read_output(MAIN, HEADS, training=True)
    assert outputs.main is MAIN
    assert outputs.auxiliary == ()


def test_named_tuple_weighs_auxiliary_in_training_only():
    output = namedtuple("Output", "logits aux_logits")(MAIN, AUX)
    outputs = read_output(output, HEADS, training=True)
    expected = cross_entropy(MAIN, LABELS) + 0.4 * cross_entropy(AUX, LABELS)
    assert torch.equal(sum(classification_loss(outputs, LABELS).values()), expected)
    assert read_output(output, HEADS, training=False).auxiliary == ()


def test_named_tuple_field_order_is_ignored():
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


def test_distilled_pair_is_averaged_in_evaluation():
    heads = (zoo.Head("head", output=0), zoo.Head("head_dist", role="distill", output=1))
    assert torch.equal(read_output((MAIN, AUX), heads, training=False).main, (MAIN + AUX) / 2)
    outputs = read_output((MAIN, AUX), heads, training=True)
    assert outputs.main is MAIN
    assert outputs.auxiliary[0][0] is AUX


def test_read_output_of_mapping_has_auxiliary():
    assert read_output({"logits": MAIN, "aux_logits": AUX}, HEADS, training=True).auxiliary


def test_auxiliary_logits_of_other_width_are_rejected():
    output = namedtuple("Output", "logits aux_logits")(MAIN, torch.randn(4, 1000))
    with pytest.raises(zoo.BrokenBackbone, match=r"\(4, 1000\) beside \(4, 3\)"):
        read_output(output, HEADS, training=True)


@pytest.mark.parametrize("output", [None, "logits", (), torch.zeros(2, 3, 4, 4)])
def test_read_output_rejects_non_logits(output):
    with pytest.raises(zoo.BrokenBackbone, match="not logits"):
        read_output(output, HEADS, training=False)


def test_unreplaced_head_is_distinguished_from_embedding():
    nine = torch.randn(4, 9)
    assert read_output((MAIN, nine), HEADS, training=True, previous=7).auxiliary == ()
    assert read_output((MAIN, nine), HEADS, training=False, previous=9).main is MAIN
    with pytest.raises(zoo.BrokenBackbone, match="output 1 still has 9 classes, the main one 3"):
        read_output((MAIN, nine), HEADS, training=True, previous=9)
    named = namedtuple("Output", "logits aux")(MAIN, nine)
    with pytest.raises(zoo.BrokenBackbone, match="output 'aux' still"):
        read_output(named, HEADS, training=True, previous=9)
