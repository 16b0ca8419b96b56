"""Outputs of networks in a dataclass are read as those in a mapping."""

from dataclasses import dataclass

import torch
from torch import Tensor

import zoo
from zoo.models.network_output import named_outputs
from zoo.tasks.classification.outputs import read_output as read_logits
from zoo.tasks.segmentation.outputs import read_output as read_masks


@dataclass
class Output:
    logits: Tensor
    aux: Tensor | None = None


HEADS = zoo.Head("fc", output="logits"), zoo.Head("aux", "aux", 0.4, output="aux")


def test_named_outputs_omits_none_fields():
    logits = torch.ones(2, 3)
    assert named_outputs(Output(logits)) == {"logits": logits}
    assert named_outputs(logits) is logits
    assert named_outputs(Output) is Output


def test_dataclass_is_read_as_mapping():
    for read, shape in ((read_logits, (2, 3)), (read_masks, (2, 3, 4, 4))):
        logits, aux = torch.randn(shape), torch.randn(shape)
        given = read(Output(logits, aux), HEADS, training=True)
        mapping = read({"logits": logits, "aux": aux}, HEADS, training=True)
        assert given.main is mapping.main is logits
        assert [(each is aux, weight) for each, weight in given.auxiliary] == [(True, 0.4)]
        assert read(Output(logits), HEADS, training=False).main is logits
