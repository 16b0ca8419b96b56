"""Copies of tensors on the CPU, awaited where a GPU makes them."""

import pytest
import torch

from tests.devices import DEVICES
from zoo.engine.features import host_copy
from zoo.engine.features.host_copy import HostCopy


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("limit", [host_copy.MAX_PINNED, 0])
def test_host_copy_is_of_the_values_at_its_time(device, limit, monkeypatch):
    monkeypatch.setattr(host_copy, "MAX_PINNED", limit)
    tensors = {
        "rows": torch.randn(400, 3000, dtype=torch.bfloat16),
        "maps": torch.randn(4, 3, 50, 60).contiguous(memory_format=torch.channels_last),
    }
    on_device = {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
    copy = HostCopy(on_device)
    for tensor in on_device.values():
        if tensor.is_cuda:  # those on the CPU are not copied
            tensor.zero_()
    for name, copied in copy.wait().items():
        assert copied.device.type == "cpu"
        assert torch.equal(copied, tensors[name])
        assert copied.stride() == tensors[name].stride()
    assert HostCopy({}).wait() == {}
