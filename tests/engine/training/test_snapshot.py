"""Round trip of the state of a training through tensors and JSON."""

import json

import pytest
import safetensors.torch
import torch

import zoo
from tests.devices import DEVICES
from zoo.engine.plan.plan import Phase
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.loop import PhaseContext, run_phase
from zoo.engine.training.optim import make_optimizer
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.sources import ImageSource, PhaseData
from zoo.engine.training.state import Adjustment, BestCheckpoint, TrainState
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.options import Policy, Schedule
from zoo.tasks.classification.task import ImageClassification

TASK = ImageClassification()
CPU = torch.device("cpu")


def network_of(backbone, seed, device=CPU):
    torch.manual_seed(seed)
    module = zoo.get(backbone).build(classes=3)
    made = provenance_of(module)
    freeze(module, policy="all")
    return Network(module, made.backbone.heads, made.preprocess, device, "fp32", TASK)


def train(network, image_folder, optimizer, metrics=None):
    """Train two epochs, and return the state afterwards."""
    opened = TASK.open_data(image_folder)
    splits = opened.splits
    data = PhaseData(splits["train"], splits["val"], opened.schema, 3, 8, metrics=metrics)
    reader = ImageReader(TASK.transform(network.preprocess), network.device, 8)
    phase = Phase("all", Policy("all"), 2, optimizer, 0.01, 0.9, 0.01, Schedule("cosine"), False)
    names = list(network.module.state_dict())
    state = TrainState(8, phase=1, earlier_epochs=4, trained=set(names))
    context = PhaseContext(3, names)
    run_phase(phase, ImageSource(network, data, reader), state, context)
    state.adjust("micro_batch_size", 4, "memory ran out with micro-batches of 8")
    state.bad["broken.jpg"] = "it is damaged"
    return state, opened.schema


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_state_round_trip_through_safetensors_and_json(tinynet, image_folder, optimizer, device):
    device = torch.device(device)
    metrics = {"largest": lambda logits, labels: logits.max()}
    network = network_of(tinynet, 0, device)
    state, schema = train(network, image_folder, optimizer, metrics)
    snapshot = Snapshot.take(state, network)
    expected = torch.rand(5, device=device)

    loaded = Snapshot(
        safetensors.torch.load(safetensors.torch.save(snapshot.tensors)),
        json.loads(json.dumps(snapshot.plain, allow_nan=False)),
    )
    other = network_of(tinynet, 1, device)
    parameters = [p for p in other.module.parameters() if p.requires_grad]
    # The settings are not state: a plan may override them.
    rate = state.optimizer.param_groups[0]["lr"]
    fresh = make_optimizer(optimizer, parameters, rate, 0.9, 0.01)
    again = TrainState(1, optimizer=fresh)
    loaded.restore(again, other, TASK.metric(schema, device, metrics))
    loaded.restore_optimizer(fresh)
    loaded.restore_generators(device)

    assert torch.equal(torch.rand(5, device=device), expected)
    assert (again.phase, again.epoch, again.step, again.total_epoch) == (1, 2, 0, 6)
    assert again.bad == {"broken.jpg": "it is damaged"}
    assert other.forwards == network.forwards > 0
    assert again.history == state.history
    assert len(again.history) == 2
    adjusted = Adjustment("micro_batch_size", 4, "memory ran out with micro-batches of 8", 1, 2)
    assert again.adjustments == [adjusted]
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, other.module.state_dict()[name]), name
    assert again.best.score == state.best.score
    assert again.best.tensors.keys() == state.best.tensors.keys()
    assert all(torch.equal(t, again.best.tensors[n]) for n, t in state.best.tensors.items())
    assert again.best.metric.report() == state.best.metric.report()

    # One more step of both results in the same weights.
    for net, current in ((network, state), (other, again)):
        torch.manual_seed(9)
        net.module.train()
        current.optimizer.zero_grad()
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        outputs = net.forward(images, training=True)
        sum(TASK.loss(outputs, torch.arange(4, device=device) % 3).values()).backward()
        current.optimizer.step()
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, other.module.state_dict()[name]), name


def test_names_that_look_like_references_are_names(tinynet, image_folder):
    network, schema = network_of(tinynet, 0), TASK.open_data(image_folder).schema
    for name in ("tensor", "float", "mapping"):
        again = TrainState(1)
        snapshot = Snapshot.take(TrainState(8, bad={name: "it is damaged"}), network)
        snapshot.restore(again, network, TASK.metric(schema, CPU))
        assert again.bad == {name: "it is damaged"}


def test_state_round_trip_before_the_first_epoch(tinynet, image_folder):
    network = network_of(tinynet, 0)
    snapshot = Snapshot.take(TrainState(8), network)
    again = TrainState(1)
    schema = TASK.open_data(image_folder).schema
    snapshot.restore(again, network, TASK.metric(schema, CPU))
    assert (again.micro_batch_size, again.epoch, again.optimizer) == (8, 0, None)
    assert again.best == BestCheckpoint()


def test_tensor_of_another_shape_or_type_is_refused(tinynet, image_folder):
    network = network_of(tinynet, 0)
    state, schema = train(network, image_folder, "sgd")
    snapshot = Snapshot.take(state, network)
    for change in (lambda tensor: tensor[:2], lambda tensor: tensor.double()):
        tensors = dict(snapshot.tensors)
        tensors["module.head.fc.weight"] = change(tensors["module.head.fc.weight"])
        with pytest.raises(RuntimeError, match=r"fc\.weight is torch"):
            Snapshot(tensors, snapshot.plain).restore(
                TrainState(1), network, TASK.metric(schema, CPU)
            )
