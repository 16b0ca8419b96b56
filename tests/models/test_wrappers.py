"""Networks in torch's wrappers: the same parameters, files and features as without."""

import socket

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import zoo
from zoo.models.wrappers import unwrap


@pytest.fixture
def group():
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def check_wrapped(wrapped: nn.Module, model: nn.Module, tmp_path) -> None:
    """Check freezing, features and the file of a wrapped network against the network."""
    assert unwrap(wrapped) is model
    trained = zoo.freeze(wrapped, policy="head")
    assert {id(p) for p in trained} == {
        id(p) for p in [*model.head.parameters(), *model.aux.parameters()]
    }
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(zoo.features(wrapped, images), zoo.features(model, images))
    before = model.stem[1].running_mean.clone()
    wrapped.train()
    wrapped(images)
    assert torch.equal(model.stem[1].running_mean, before)
    zoo.save(wrapped, tmp_path / "wrapped.safetensors", ["a", "b", "c"])
    zoo.save(model, tmp_path / "plain.safetensors", ["a", "b", "c"])
    files = [
        (tmp_path / name).read_bytes() for name in ("wrapped.safetensors", "plain.safetensors")
    ]
    assert files[0] == files[1]
    assert zoo.transform(wrapped).preprocess == zoo.transform(model).preprocess


@pytest.mark.parametrize("wrap", [DataParallel, compiled, lambda m: DataParallel(compiled(m))])
def test_wrapped_network_equals_plain_one(tinynet, tmp_path, wrap):
    torch.manual_seed(0)
    model = zoo.get(tinynet).build(classes=3)
    check_wrapped(wrap(model), model, tmp_path)


def test_distributed_network_equals_plain_one(tinynet, tmp_path, group):
    torch.manual_seed(0)
    model = zoo.get(tinynet).build(classes=3)
    check_wrapped(DistributedDataParallel(model, find_unused_parameters=True), model, tmp_path)


def test_averaged_network_is_saved_with_its_average(tinynet, tmp_path):
    model = zoo.get(tinynet).build(classes=2)
    averaged = AveragedModel(model)
    with torch.no_grad():
        model.aux.weight.add_(1)
    averaged.update_parameters(model)
    with torch.no_grad():
        model.aux.weight.add_(2)
    averaged.update_parameters(model)
    path = zoo.save(averaged, tmp_path / "averaged.safetensors", ["a", "b"])
    saved = zoo.load(path, device="cpu").module.aux.weight
    torch.testing.assert_close(saved, model.aux.weight - 1)


def test_wrapper_of_foreign_network_raises(tinynet):
    with pytest.raises(zoo.UsageError, match="did not build this Linear"):
        zoo.freeze(DataParallel(nn.Linear(2, 2)))
