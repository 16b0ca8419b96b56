"""Rows of trained heads of segmentation networks follow the names of the masks' classes."""

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.tasks.segmentation.scenes import SHAPES
from zoo.engine.run.prepare import prepare, read_options
from zoo.registry.registry import load_registry
from zoo.terminal import Progress

HEADS = {
    "tinyfcn": ("classifier.4", "aux_classifier.4"),
    "twohead": ("classifier.low_classifier", "classifier.high_classifier"),
}
# As SHAPES, but in another order, with one class more and one less.
TRAINED = (*reversed(SHAPES[:-1]), "boat")


@pytest.mark.parametrize("name", HEADS)
def test_head_rows_of_masks_match_by_name(tinyfcn, name, scenes, tmp_path):
    model = zoo.get(name).build(classes=len(TRAINED))
    own = zoo.save(model, tmp_path / "own.safetensors", TRAINED)
    trained = load_file(own)
    options = read_options(data=scenes, weights=str(own), device="cpu", train="head")
    prepared = prepare(name, options, load_registry(), Progress(quiet=True))
    assert prepared.network is not None
    state = prepared.network.module.state_dict()
    assert "background" in SHAPES
    for head in HEADS[name]:
        for part in ("weight", "bias"):
            own_rows, rows = trained[f"{head}.{part}"], state[f"{head}.{part}"]
            for row, label in enumerate(SHAPES[:-1]):
                assert torch.equal(rows[row], own_rows[TRAINED.index(label)])
            assert not torch.equal(rows[len(SHAPES) - 1], own_rows[TRAINED.index("boat")])
    assert prepared.base.rows.new == SHAPES[-1:]
    assert prepared.base.rows.left_out == ("boat",)
