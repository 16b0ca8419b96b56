"""Resuming with settings, data or Python objects other than those of the training."""

import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

import zoo
from tests.engine.run.interrupting import InterruptingLoss, history

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}


def test_changed_settings_are_refused_with_all_differences(interrupted):
    folder, _ = interrupted
    with pytest.raises(zoo.UsageError) as caught:
        zoo.finetune(resume=folder, lr=0.5, batch_size=4, epochs=2, loss=InterruptingLoss())
    message = str(caught.value)
    for difference in ("lr: 0.01, now 0.5", "batch_size: 8, now 4", "epochs: 3, now 2"):
        assert difference in message
    assert "override" in message


def test_override_goes_on_with_changed_settings(interrupted, capsys):
    folder, _ = interrupted
    run = zoo.finetune(
        resume=folder,
        lr=0.5,
        batch_size=4,
        optimizer="sgd",
        override=True,
        loss=InterruptingLoss(),
        quiet=False,
    )
    assert "resuming with differences" in capsys.readouterr().err
    assert run.record["plan"]["batch_size"] == 4
    assert [line.split(",")[:2] for line in history(run)[1:]] == [
        ["all", str(n)] for n in (1, 2, 3)
    ]


def test_changed_data_or_classes_are_refused(interrupted, image_folder):
    folder, _ = interrupted
    fewer = Path(shutil.copytree(image_folder, "fewer"))
    shutil.rmtree(fewer / "train" / "flag")
    shutil.rmtree(fewer / "val" / "flag")
    shutil.rmtree(fewer / "test" / "flag")
    with pytest.raises(zoo.UsageError, match=r"data\.fingerprint: .*schema\.classes: "):
        zoo.finetune(resume=folder, data=fewer, loss=InterruptingLoss())
    with pytest.raises(zoo.WeightsError, match="does not fit"):
        zoo.finetune(resume=folder, data=fewer, override=True, loss=InterruptingLoss())


@pytest.mark.parametrize("when", ["before", "between", "during"])
def test_image_replaced_at_equal_size_is_noticed(when, tinynet, image_folder, capsys):
    data = Path(shutil.copytree(image_folder, "data"))
    image = min((data / "train" / "flag").iterdir())

    class Replacing(InterruptingLoss):
        def __call__(self, logits, labels):
            if self.count == 3 and when == "during" and not self.calls:
                replace_content(image)
            return super().__call__(logits, labels)

    if when == "before":
        replace_content(image)
    options = {**QUICK, "train": "all", "data": data, "epochs": 3, "out": "run"}
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(tinynet, **options, loss=Replacing(5))
    if when == "between":
        replace_content(image)
    zoo.finetune(resume="run", loss=Replacing(), quiet=False)
    lines = [line for line in capsys.readouterr().err.splitlines() if "written or repl" in line]
    changed = f"1 file was written or replaced since this training began: train/flag/{image.name}"
    advice = "if they show something else, begin a new training"
    expected = [f"data: {changed}; {advice}"] if when != "before" else []
    assert lines == expected


def replace_content(image: Path) -> None:
    """Give a file another image, of its own size and time."""
    time.sleep(0.02)  # the resolution of times of files
    status = image.stat()
    Image.new("RGB", (9, 9), "red").save(image)
    image.write_bytes(image.read_bytes().ljust(status.st_size, b"\0"))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == status.st_size
    time.sleep(0.02)


def test_another_backbone_is_refused(plainnet, interrupted):
    with pytest.raises(zoo.UsageError, match="backbone: tiny/tinynet, now plain/plainnet"):
        zoo.finetune(plainnet, resume=interrupted[0], loss=InterruptingLoss())


def test_python_objects_have_to_be_given_again(interrupted):
    with pytest.raises(zoo.UsageError, match="loss of this training is a Python object"):
        zoo.finetune(resume=interrupted[0])
