"""Type checkers accept correct calls in a user's script, and refuse wrong ones."""

import ast
import subprocess
import sys
import textwrap
from typing import get_args

import pytest

from zoo.options import OPTIONS, given

RIGHT = """
    from pathlib import Path
    from typing import Any
    import zoo

    run: zoo.Run = zoo.finetune("resnet18", data="photos", epochs=4, lr=[1e-3, 1e-4], crop="squash")
    run = zoo.finetune(zoo.get("resnet18"), train=zoo.options.Policy("head"), val=None)
    top1: float = run.metrics["val"]["top1"]
    top1 = run.model().evaluate("photos")["top1"]
    top1 = zoo.evaluate(run.path)["per_class"]["flag"]["top1"] or 0.0
    flags: object = zoo.evaluate(run.path, metrics={"flags": lambda logits, labels: 0.5})["flags"]
    answer: zoo.Prediction = zoo.predict("lite0", ["cat.jpg"], weights="auto", precision="bf16")[0]
    name: str = answer["predictions"][0]["class"]
    plan = zoo.plan("lite0", epochs=(1, 2), optimizer="sgd", loss=None)
    found: list[zoo.Backbone] = zoo.list_backbones("resnet*", "vgg*", pretrained=True)
    zoo.freeze(zoo.get("lite0").build(classes=3), "head")
    untyped: dict[str, Any] = {"epochs": 1, "lr": 0.1}
    typed: zoo.options.TrainingOptions = {"epochs": 1, "lr": 0.1}
    run = zoo.finetune("lite0", out="runs/first", **untyped)
    run = zoo.finetune("lite0", quiet=False, **typed)
    backbone = zoo.register(zoo.Backbone("a", "a:b", (zoo.Head("fc"),), zoo.Preprocess(size=32)))
    accuracy: float | None = zoo.rank(backbone, "lite*", data="photos")[0].accuracy
    conforms: bool = zoo.testing.check_plugin("lite", jobs=2)[0].conforms
    bad: list[str] = list(zoo.check("photos").bad)
    model: zoo.Model = run.model()
    with open("cat.jpg", "rb") as file:
        answers: list[zoo.Prediction] = model.predict(file, top=1)
    answers = model.predict(["cat.jpg", b"bytes", Path("dog.jpg")])
    answers = model.predict(path for path in Path("photos").iterdir())
    width: int = model.features("cat.jpg").shape[1]
    failed: list[str] = [check.summary for check in zoo.doctor().errors]
"""
WRONG = """
    import zoo

    zoo.finetune("lite0", epoch=4)
    zoo.finetune("lite0", lr="abc")
    zoo.finetune("lite0", optimizer="sdg")
    zoo.finetune("lite0", recipe="probing")
    zoo.plan("lite0", bad_images="skp")
    zoo.predict("lite0", "cat.jpg", precision="fp23")
    zoo.evaluate("run", bad_images="ignore")
    zoo.load("run", precision=16)
    zoo.predict("lite0", "cat.jpg")[0]["prediction"]
    zoo.predict("lite0", "cat.jpg")[0]["predictions"][0]["label"]
    zoo.evaluate("run")["top3"]
    zoo.finetune("lite0").metrics["val"]["accuracy"]
    zoo.list_backbones("a*", sources="timm")
    zoo.get(3)
    zoo.options.TrainingOptions(epochs="4")
    zoo.register(zoo.Head("fc"))
    zoo.check("photos").images["train"] + "s"
    zoo.doctor("devices")
"""
# Where the types of tensors, arrays and PIL images are known.
WRONG_IMAGES = """
    import zoo

    zoo.load("run").predict(5)
    zoo.load("run").predict([1.5])
    zoo.load("run").features(2.5)
"""
# Of libraries, whose types a script does not need to be refused: half a minute without a cache.
SKIP = "[mypy-torch.*,torchvision.*,timm.*,numpy.*,PIL.*,click.*,huggingface_hub.*]\n"


def mypy(folder, source, settings):
    """Return the numbers of the lines that mypy refuses, and its output."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source).lstrip())
    (folder / "mypy.ini").write_text(f"[mypy]\nstrict = True\n{settings}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert all(line.startswith("script.py:") for line in errors), done.stdout
    return {int(line.split(":")[1]) for line in errors}, done.stdout


@pytest.mark.parametrize(
    "settings",
    [f"{SKIP}follow_imports = skip\n", pytest.param("", marks=pytest.mark.slow)],
    ids=["zoo-only", "all-libraries"],
)
def test_mypy_strict_refuses_wrong_calls_only(tmp_path, settings):
    refused, output = mypy(tmp_path, RIGHT, settings)
    assert not refused, output
    for source in [WRONG] if settings else [WRONG, WRONG_IMAGES]:
        wrong = ast.parse(textwrap.dedent(source).lstrip()).body[1:]
        refused, output = mypy(tmp_path, source, settings)
        assert refused == {statement.lineno for statement in wrong}, output


def test_modules_are_imported_like_names():
    program = "import zoo; print(zoo.options.Policy('head'), zoo.testing.check_plugin.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["head", "check_plugin"], done.stderr


def test_option_types_are_those_of_the_table():
    assert list(given.TrainingOptions.__annotations__) == [option.name for option in OPTIONS]
    chosen = {"bad_images": given.BadImages, "crop": given.Crop, "recipe": given.Recipe}
    chosen |= {"interpolation": given.Interpolation, "optimizer": given.Optimizer}
    chosen |= {"memory_format": given.MemoryFormat, "engine": given.Engine}
    assert {option.name for option in OPTIONS if option.choices} == chosen.keys()
    for option in OPTIONS:
        if option.choices:
            assert get_args(chosen[option.name]) == option.choices
