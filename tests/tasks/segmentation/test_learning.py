"""Training from random weights on synthetic scenes reaches a useful mIoU."""

import pytest

import zoo
from tests.tasks.segmentation.scenes import SHAPES, write_scenes


@pytest.mark.slow
def test_small_network_learns_shapes(tinyfcn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = tmp_path / "scenes"
    for split, count, seed in (("train", 400, 1), ("val", 60, 2), ("test", 100, 3)):
        write_scenes(scenes / split, count, seed)
    (scenes / "classes.txt").write_text("\n".join(SHAPES))
    run = zoo.finetune(
        tinyfcn,
        data=scenes,
        weights="none",
        train="all",
        epochs=40,
        batch_size=16,
        lr=3e-3,
        augment="flip",
        device="cpu",
        precision="fp32",
    )
    values = run.metrics["test"]
    pixels = {name: each["pixels"] for name, each in values["per_class"].items()}
    share = pixels["background"] / sum(pixels.values())
    # mIoU of predicting background everywhere: its share as IoU, and zero for the others.
    constant = share / len(SHAPES)
    assert constant < 0.23
    assert values["miou"] > 0.55  # measured: 0.68, against 0.21 of a constant
    assert min(each["iou"] for each in values["per_class"].values()) > 0.25
