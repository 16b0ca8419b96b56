"""docs/channels-last.md: its script runs, and trials that it calls correct end with 0."""

import re
import subprocess
import sys

import pytest
import torch

import zoo
from tests.docs.passages import read_page
from tests.processes import started
from zoo.engine.runtime import memory_format
from zoo.engine.runtime.memory_format import contiguous_layers
from zoo.models.builder import build_on_meta

PAGE = read_page("channels-last.md")
TEXT = PAGE.path.read_text(encoding="utf-8")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
@pytest.mark.parametrize("name", re.findall(r"`(timm/\w+)`", TEXT))
def test_networks_of_the_page_have_such_a_layer(name, monkeypatch):
    monkeypatch.setattr(memory_format, "_lanes", lambda: 16)  # of the machine of the page
    backbone = zoo.get(name)
    network = build_on_meta(backbone, backbone.kwargs)
    [layer] = contiguous_layers(network, torch.device("cpu"))
    assert f"`{layer}`" in TEXT or layer.startswith("stem.")


@pytest.mark.slow  # a process that imports torch for each of the trials
def test_script_of_channels_last_page_runs():
    [block] = [block for heading in PAGE.sections for block in PAGE.blocks(heading)]
    with started([sys.executable, "-c", block.text], stdout=subprocess.PIPE) as process:
        printed, _ = process.communicate(timeout=590)
    assert process.returncode == 0
    measured = [line.rpartition("} ")[2] for line in printed.splitlines()]
    _, _, table = TEXT.partition("| changed | exit code |\n")
    lines = table.split("\n\n")[0].splitlines()[1:]
    stated = [line.strip("| ").split(" | ")[1] for line in lines]
    # What fails depends on the CPU and the version of torch; what is correct must be everywhere.
    rows = zip(stated, measured, strict=True)
    wrong = [row for row in rows if row[0] == "0" != row[1]]
    assert not wrong, printed
