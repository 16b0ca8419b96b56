"""The report of segmentation: IoU of images and classes, and the worst images with their masks."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

import zoo
from tests.reporting.test_report import check_page
from zoo.reporting.load import read_run
from zoo.tasks.base import Outputs
from zoo.tasks.segmentation.evidence import sample_results
from zoo.tasks.segmentation.schema import IGNORE_INDEX
from zoo.tasks.segmentation.task import SemanticSegmentation


def test_iou_of_images_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 6, 5, generator=generator)
    masks = torch.randint(3, (4, 6, 5), generator=generator, dtype=torch.uint8)
    masks[1, :3] = IGNORE_INDEX
    masks[2] = IGNORE_INDEX
    masks[3], logits[3, 0] = 0, 10.0  # one class, all right
    values = sample_results(Outputs(logits), masks)
    for index in (0, 1, 3):
        labelled = masks[index] != IGNORE_INDEX
        true, best = masks[index][labelled].numpy(), logits[index].argmax(0)[labelled].numpy()
        expected = jaccard_score(true, best, average="macro", labels=np.union1d(true, best))
        assert float(values["iou"][index]) == pytest.approx(expected)
        assert float(values["accuracy"][index]) == pytest.approx((true == best).mean())
    assert (values["iou"][2:].tolist(), values["accuracy"][2:].tolist()) == ([1, 1], [1, 1])


def test_report_has_worst_images_and_classes(tinyfcn, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
    options = {"train": "all", "epochs": 2, "weights": "none", "device": "cpu"}
    run = zoo.finetune(tinyfcn, data=scenes, out=tmp_path / "run", **options)
    page = check_page(run.path / "report.html")
    titles = ("Classes, val", "Worst images", "Learning curves", "First training batch")
    assert all(title in page.text for title in titles)
    assert "Mean IoU, val" in page.text
    stored, _ = read_run(run.path)
    samples, worst = stored.results["samples"]["val"], stored.results["worst"]
    ious = [samples["iou"][each["row"]] for each in worst["shown"]]
    assert ious == sorted(samples["iou"])
    assert len(ious) == stored.record["metrics"]["val"]["images"] == 4
    # The first drawing is the mask: its colours are where the mask has classes.
    first = worst["shown"][0]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(first["images"][0]))), dtype=int)
    name = samples["name"][first["row"]].replace("images/", "masks/")
    mask = np.asarray(Image.open(scenes / name))
    with Image.open(scenes / samples["name"][first["row"]]) as opened:
        image = np.asarray(opened.convert("RGB").resize((64, 48)), dtype=int)
    changed = np.abs(drawn[8:56] - image).max(axis=2)  # 96 x 72 in a border of 64 x 64
    inside = np.asarray(Image.fromarray(mask > 0).resize((64, 48)))
    assert changed[inside].mean() > 2 * changed[~inside].mean()
    lines = dict(SemanticSegmentation().summary_lines(stored))
    classes = stored.record["metrics"]["val"]["per_class"].items()
    lowest = min((each["iou"], name) for name, each in classes if each["iou"] is not None)
    assert lines["weak"].startswith(f"IoU of {lowest[1]} ")
