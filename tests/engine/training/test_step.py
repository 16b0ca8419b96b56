"""Training steps in micro-batches, and recovery from running out of memory."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import zoo
from zoo.engine.training.state import TrainState
from zoo.engine.training.step import Step
from zoo.modelfile import read_model
from zoo.tasks.base import Outputs
from zoo.tasks.classification.task import ImageClassification

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {
    "weights": "none",
    "device": "cpu",
    "precision": "fp32",
    "lr": 0.05,
    "batch_size": 8,
    "epochs": 2,
}


def tensors(run):
    return read_model(run.path / "model.safetensors")[1].tensors


@pytest.mark.parametrize("train", ["all", "head"])
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_train_like_whole_batches(plainnet, image_folder, train, size):
    options = {**QUICK, "data": image_folder, "optimizer": "sgd", "train": train}
    whole = zoo.finetune(plainnet, **options)
    parts = zoo.finetune(plainnet, **options, micro_batch_size=size)
    assert parts.record["plan"]["micro_batch_size"] == size
    for name, tensor in tensors(whole).items():
        torch.testing.assert_close(tensors(parts)[name], tensor, rtol=1e-4, atol=1e-6)
    assert parts.metrics["val"]["loss"] == pytest.approx(whole.metrics["val"]["loss"], rel=1e-4)
    losses = [
        [line.split(",")[3] for line in (run.path / "history.csv").read_text().splitlines()[1:]]
        for run in (whole, parts)
    ]
    assert [float(x) for x in losses[1]] == pytest.approx([float(x) for x in losses[0]], rel=1e-4)


class OutOfMemory(nn.Module):
    """Run out of memory with more than `most` rows; with dropout and batch norm."""

    def __init__(self, most: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.most = most

    def forward(self, x):
        x = self.drop(self.norm(x))
        if len(x) > self.most:
            torch.empty(1 << 60, dtype=torch.uint8)
        return self.fc(x)


class Rows:
    """A source of rows of numbers."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.network = SimpleNamespace(task=ImageClassification())

    def forward(self, inputs, through=None):
        return Outputs(self.module(inputs))


def step_on(module: nn.Module, size: int, names, on_adjustment) -> Step:
    state = TrainState(size, optimizer=torch.optim.SGD(module.parameters(), lr=0.1))
    return Step(Rows(module), state, None, names, on_adjustment)


def run_steps(most: int, size: int, sizes: list[int], norm: bool = True, images: int = 16):
    torch.manual_seed(1)
    module = OutOfMemory(most, norm)
    inputs, labels = torch.randn(images, 4), torch.arange(images) % 2
    names = list(module.state_dict())
    step = step_on(module, size, names, lambda name, value, reason: sizes.append(value))
    losses = [step(inputs, labels) for _ in range(3)]
    return torch.stack(losses), module.state_dict(), torch.get_rng_state()


def test_step_after_out_of_memory_equals_smaller_micro_batch():
    sizes: list[int] = []
    losses, state, rng = run_steps(most=4, size=16, sizes=sizes)
    assert sizes == [8, 4]
    direct, expected, after = run_steps(most=4, size=4, sizes=sizes)
    assert sizes == [8, 4]
    assert torch.equal(losses, direct)
    assert torch.equal(rng, after)
    assert state["norm.num_batches_tracked"] == 3 * 4
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_odd_micro_batch_is_halved_upwards():
    sizes: list[int] = []
    run_steps(most=3, size=7, sizes=sizes, images=7)
    assert sizes == [4, 2]


@pytest.mark.parametrize(("norm", "least"), [(True, 2), (False, 1)])
def test_out_of_memory_at_smallest_micro_batch_raises(norm, least):
    sizes: list[int] = []
    with pytest.raises(zoo.EnvironmentProblem, match=f"with a micro-batch of {least}; give"):
        run_steps(most=0, size=16, sizes=sizes, norm=norm)
    assert sizes == [8, 4, 2, 1][: 4 - least + 1]


def test_other_errors_propagate():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            raise RuntimeError("something else")

    module = Broken()
    step = step_on(module, 16, [], lambda *given: pytest.fail("it halved"))
    with pytest.raises(RuntimeError, match="something else"):
        step(torch.randn(4, 4), torch.zeros(4, dtype=torch.int64))


TIGHT = """
    import resource
    import torch
    from torch import nn
    import zoo

    EACH = 64 << 20

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("tightnet", "tight:build", (zoo.Head("fc"),), small)

    class Tight(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 7)
            self.limited = False

        def forward(self, x):
            if self.training and not self.limited:
                self.limited = True
                pages = int(open("/proc/self/statm").read().split()[5])
                now = pages * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_DATA, (now + int(EACH * PARTS), -1))
            if self.training:
                block = torch.empty(len(x), EACH, dtype=torch.uint8).fill_(1)
                x = x * block[0, 0]
            return self.fc(x.mean((2, 3)))

    def build(weights=None):
        return Tight()
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_features_out_of_memory_halves_the_batch(image_folder, plugin_file, zoo_process, own_cache):
    # Allocate in eval mode too; the limit is twelve images, of batches of 32.
    source = (
        TIGHT.replace("64 << 20", "32 << 20")
        .replace("self.training and not", "not")
        .replace("if self.training:", "if True:")
    )
    file = plugin_file("tight", source.replace("PARTS", "13.9"))
    options = ["--data", str(image_folder), "--weights", "none", "--recipe", "probe", "--json"]
    options += ["--device", "cpu", "--precision", "fp32"]
    done = zoo_process("--plugin", str(file), "finetune", "tight/tightnet", *options)
    assert done.returncode == 0, done.stderr
    notices = [line.partition(" (")[0] for line in done.stderr.splitlines() if "ran out" in line]
    assert notices == [
        "memory ran out with batches of 32 images; features are computed in batches of 16",
        "memory ran out with batches of 16 images; features are computed in batches of 8",
    ]
    record = json.loads(done.stdout)
    assert record["plan"]["phases"][0]["keep_features"] is True
    again = zoo_process("--plugin", str(file), "finetune", "tight/tightnet", *options)
    assert json.loads(again.stdout)["sha256"] == record["sha256"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_process_out_of_memory_trains_in_micro_batches(image_folder, plugin_file, zoo_process):
    def run(limit: str):
        file = plugin_file("tight", TIGHT.replace("PARTS", limit))
        options = ["--data", str(image_folder), "--weights", "none", "--batch-size", "8", "--json"]
        options += ["--epochs", "2", "--device", "cpu"]
        return zoo_process("--plugin", str(file), "finetune", "tight/tightnet", *options)

    done = run("6.5")
    assert done.returncode == 0, done.stderr
    notices = [line for line in done.stderr.splitlines() if "memory ran out" in line]
    assert notices == [
        "memory ran out with micro-batches of 8; continuing with micro-batches of 4 of each 8"
    ]
    record = json.loads(done.stdout)
    assert (record["plan"]["batch_size"], record["plan"]["micro_batch_size"]) == (8, 8)
    (adjustment,) = record["adjustments"]
    assert (adjustment["name"], adjustment["value"]) == ("micro_batch_size", 4)
    assert adjustment["reason"] == "memory ran out with micro-batches of 8"
    failed = run("0.5")
    assert failed.returncode == zoo.ExitCode.ENVIRONMENT
    failure = json.loads(failed.stderr.splitlines()[-1])
    assert failure["message"] == "out of memory in training, with a micro-batch of 1"
    assert failure["hint"].startswith("give")
