"""docs/export.md: its examples run, and the server answers."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import zoo
from tests.docs.page_runner import PageRunner
from tests.docs.passages import read_page
from tests.processes import started

PAGE = read_page("export.md")


@pytest.fixture
def run_folder(page_folder, tinynet) -> Path:
    zoo.finetune(tinynet, data="photos", weights="none", epochs=1, out="runs/photos", device="cpu")
    return page_folder


@pytest.mark.slow  # converts a network, in seconds
def test_export_page_runs_and_serves(run_folder, monkeypatch, capsys):
    runner = PageRunner(run_folder, monkeypatch, capsys)
    for heading in ("Exporting a model", "ONNX"):
        for block in PAGE.blocks(heading):
            runner.execute(block)
    printed = runner.printed.strip()
    module = zoo.get("timm/resnet10t").build(classes=3)
    Path("runs/small").mkdir()
    zoo.save(module, "runs/small/model.safetensors", ("a", "b", "c"))
    zoo.export("runs/small", "timm")
    runner.execute(PAGE.blocks("timm and transformers")[0])
    assert runner.names["network"].num_classes == 3
    (expected,) = zoo.predict("runs/photos", "cat.jpg", device="cpu", precision="fp32")
    best = expected["predictions"][0]
    assert printed == best["class"]
    zoo.export("runs/photos", "openvino")
    runner.execute(PAGE.blocks("torch.export and OpenVINO")[0])
    found = runner.names["probabilities"][0]
    assert found.max() == pytest.approx(best["probability"], abs=0.01)
    source = PAGE.blocks("Serve it", "python")[0].text
    assert 25 <= len([line for line in source.splitlines() if line]) <= 32
    (run_folder / "serve.py").write_text(source)
    command = [sys.executable, "serve.py", "runs/photos/model.onnx", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with started(command, cwd=run_folder, **pipes) as process:
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address, Path("cat.jpg").read_bytes(), timeout=60) as answer:
            found = json.load(answer)
        assert max(found, key=found.get) == best["class"]
        assert found[best["class"]] == pytest.approx(best["probability"], abs=0.01)
        with pytest.raises(urllib.error.HTTPError, match="400: not an image"):
            urllib.request.urlopen(address, b"text", timeout=60)
