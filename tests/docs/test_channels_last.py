"""docs/channels-last.md: its script runs, and trials that it calls correct end with 0."""

import re
import subprocess
import sys

import pytest
import torch

import zoo
from tests.docs.passages import read_page
from zoo.engine.runtime.memory_format import contiguous_layers
from zoo.models.builder import build_on_meta

PAGE = read_page("channels-last.md")
TEXT = PAGE.path.read_text(encoding="utf-8")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN")
@pytest.mark.parametrize("name", re.findall(r"`(timm/\w+)`", TEXT))
def test_networks_of_the_page_have_such_a_layer(name):
    backbone = zoo.get(name)
    network = build_on_meta(backbone, backbone.kwargs)
    [layer] = contiguous_layers(network, torch.device("cpu"))
    assert f"`{layer}`" in TEXT or layer.startswith("stem.")


@pytest.mark.slow  # a process that imports torch for each of the trials
def test_script_of_channels_last_page_runs():
    [block] = [block for heading in PAGE.sections for block in PAGE.blocks(heading)]
    done = subprocess.run(
        [sys.executable, "-c", block.text], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = [int(line.split()[-1]) for line in done.stdout.splitlines()]
    _, _, table = TEXT.partition("| changed | exit code |\n")
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()[1:]]
    stated = [int(code) for _, code in rows]
    assert len(measured) == len(stated)
    # What fails depends on the CPU and the version of torch; what is correct must be everywhere.
    wrong = [row for row, code, was in zip(rows, stated, measured, strict=True) if was and not code]
    assert not wrong, done.stdout
