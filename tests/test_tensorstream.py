"""Safetensors files in parts: the bytes of the library, and the memory of a conversion."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from zoo.tensorstream import DTYPES, TensorStream, tensor_bytes

MEASURE = """
import os, sys, threading
from pathlib import Path
import torch
from zoo.models import unpickle, weights
from zoo.tensorfile import read_checkpoint
from zoo.tensorstream import TensorStream

def resident():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) >> 10

source, out = map(Path, sys.argv[2:])

def published():
    weights._store(out / "record.json", "0" * 64, TensorStream(read_checkpoint(source)))

def own():
    assert "sha256" in unpickle.convert(source, out / "own.safetensors")

small = source.with_name("small.pth")
torch.save({"a": torch.ones(2)}, small)
if sys.argv[1] == "copied":
    del os.memfd_create
convert = own if sys.argv[1] == "own" else published
source, whole = small, source
convert()  # imports
source, before, most, over = whole, resident(), [0], threading.Event()

def watch():
    while not over.wait(0.001):
        most[0] = max(most[0], resident())

watcher = threading.Thread(target=watch)
watcher.start()
convert()
over.set()
watcher.join()
print(most[0] - before)
"""


def test_stream_has_the_bytes_of_the_library():
    kinds = {name: getattr(torch, name) for name, _ in DTYPES.values()}
    tensors = {f"of {name}": torch.arange(6).to(kind).view(2, 3) for name, kind in kinds.items()}
    tensors["shared ä"] = tensors["of float32"][:1]
    tensors["transposed"] = torch.arange(6.0).view(2, 3).t()
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0)}
    tensors["trained"] = nn.Parameter(torch.ones(1))
    stream = TensorStream(tensors)
    assert b"".join(stream) == b"".join(stream) == tensor_bytes(tensors)


def test_tensor_without_a_type_of_the_format_is_refused():
    with pytest.raises(TypeError, match="a is a tensor of complex128"):
        TensorStream({"a": torch.ones(2, dtype=torch.complex128)})
    with pytest.raises(TypeError, match=r"a is a tensor of float32, torch\.sparse_coo"):
        TensorStream({"a": torch.eye(2).to_sparse()})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("which", ["published", "own", "copied"])
def test_converting_a_checkpoint_takes_its_size(tmp_path, which):
    size = 96
    tensors = {f"layer{number}": torch.rand(8 << 18) for number in range(size // 8)}
    torch.save(tensors, tmp_path / "weights.pth")
    command = [sys.executable, "-c", MEASURE, which, tmp_path / "weights.pth", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Resident memory in MiB, the pages of the mapped file included; a control has both in memory.
    taken = int(done.stdout) / size
    assert taken > 1.5 if which == "copied" else 0.5 < taken <= 1.2
