"""An installed plugin of tasks: one conforms, the others have one fault each."""

ADAPTER = """
    import zoo

    @zoo.hookimpl
    def zoo_register_tasks():
        for name in {names}:
            target = f"faulty_tasks:{{name.title()}}"
            yield zoo.Task(name.lower(), "a task with a fault", target)

    @zoo.hookimpl
    def zoo_register_backbones():
        head = zoo.Head("fc")
        yield zoo.Backbone("plain", "faulty_tasks:build", (head,), zoo.Preprocess(16, 16),
                           task="sound")
        yield zoo.Backbone("pooled", "faulty_tasks:pooled", (zoo.Head("fc"),),
                           zoo.Preprocess(16, 16), task="elsewhere")
"""

TASKS = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from zoo.data.dataset import SampleTransform
from zoo.data.images import noise
from zoo.data.schema import Schema
from zoo.data.targets import hold_out, image_data, open_one, open_splits
from zoo.tasks.base import BaseTask, Metric, Outputs


class Net(nn.Module):
    def __init__(self, pooled):
        super().__init__()
        self.pooled = pooled
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Conv2d(8, 7, 1) if pooled else nn.Linear(8, 7)

    def forward(self, images):
        features = self.body(images)
        return self.fc(features).mean((2, 3)) if self.pooled else self.fc(features.mean((2, 3)))


def build(weights=None):
    return Net(pooled=False)


def pooled(weights=None):
    return Net(pooled=True)


@dataclass(frozen=True)
class Pair(Schema):
    scale: float = 2.0

    @property
    def outputs(self):
        return 2


def read(target):
    return tuple(float(each) for each in target)


class PairMetric(Metric):
    def __init__(self, schema, device, further=None):
        super().__init__()
        self.further = further or {}
        self.sums = {"squared": torch.zeros((), dtype=torch.float64), "images": torch.zeros(())}
        self.rows = {"outputs": [], "targets": []}

    def update(self, outputs, targets):
        self.sums["squared"] += ((outputs.main - targets) ** 2).mean(1).sum().double()
        self.sums["images"] += len(targets)
        self.rows["outputs"].append(outputs.main)
        self.rows["targets"].append(targets)

    def compute(self):
        images = int(self.sums["images"])
        rows = [torch.cat(rows) for rows in self.rows.values()] if images else []
        own = {name: float(each(*rows)) for name, each in self.further.items()} if images else {}
        return {"loss": float(self.sums["squared"]) / max(images, 1), "images": images, **own}


class Sound(BaseTask):
    """Two numbers for each image."""

    name = "sound"
    schema_type = Pair
    metric = PairMetric

    def open_data(self, source, *, seed=0, val_fraction=0.2, classes=None):
        splits, reason = hold_out(open_splits(source, read, read), seed, val_fraction)
        return image_data(source, splits, Pair(), reason)

    def open_split(self, source, schema, split=None):
        return open_one(source, read, read, split)

    def example_data(self, preprocess, count, seed):
        numbers = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        whole = TensorDataset(noise(count, preprocess, seed), numbers)
        return self.open_data({"train": whole, "val": whole})

    def loss(self, outputs, targets, criterion=None):
        return {"main": mse_loss(outputs.main.float(), targets)}

    def predict(self, outputs, images, schema, *, top=5, out=None):
        return [{"predictions": [{"pair": pair}]} for pair in outputs.main.tolist()]


class Unseeded(Sound):
    def example_data(self, preprocess, count, seed):
        return super().example_data(preprocess, count, int(torch.randint(1 << 30, ())))


class Dataless(Sound):
    def example_data(self, preprocess, count, seed):
        return BaseTask.example_data(self, preprocess, count, seed)


class Forgetful(Sound):
    schema_type = Schema  # not the schema of its data

    def schema_from_dict(self, plain):
        return Pair()  # ignores the file

    def example_data(self, preprocess, count, seed):
        from dataclasses import replace

        return replace(super().example_data(preprocess, count, seed), schema=Pair(scale=0.1))


class Ragged(Sound):
    def transform(self, preprocess):
        return RaggedTransform(preprocess)


class RaggedTransform(SampleTransform):
    def collate(self, targets):
        stacked = super().collate(targets)
        return stacked[0] if len(targets) == 1 else stacked


class Doubled(Sound):
    def split_targets(self, split, transform):
        return super().split_targets(split, transform).double()


class Credulous(Sound):
    def read_output(self, output, heads, training, previous=None):
        return Outputs(output)


class Halved(Sound):
    def combine_heads(self, outputs, size, training):
        return Outputs(super().combine_heads(outputs, size, training).main / 2)


class Detached(Sound):
    def loss(self, outputs, targets, criterion=None):
        return {"main": mse_loss(outputs.main.detach(), targets)}


class Upward(Sound):
    def loss(self, outputs, targets, criterion=None):
        return {"main": -mse_loss(outputs.main, targets).clamp(max=0.0) + (outputs.main * 0).sum()}


class Infinite(Sound):
    def loss(self, outputs, targets, criterion=None):
        return {"main": mse_loss(outputs.main, targets) / 0}


class Vector(Sound):
    def loss(self, outputs, targets, criterion=None):
        return {"main": mse_loss(outputs.main, targets, reduction="none").mean(1)}


class Summed(Sound):
    def loss(self, outputs, targets, criterion=None):
        return {"main": mse_loss(outputs.main, targets, reduction="sum")}


class Nameless(Sound):
    columns = ("loss", "accuracy")


class Unreserved(Sound):
    class metric(PairMetric):
        def report(self):
            return {**self.compute(), "detail": 1}


class Undefined(Sound):
    class metric(PairMetric):
        def compute(self):
            return {**super().compute(), "loss": float("nan")}


class Averaging(Sound):
    class metric(PairMetric):
        def update(self, outputs, targets):
            self.rows["targets"].append(targets)
            self.rows["outputs"].append(outputs.main)
            self.sums["images"] += len(targets)
            self.losses = [*getattr(self, "losses", []), mse_loss(outputs.main, targets).item()]

        def compute(self):
            losses = getattr(self, "losses", [0.0])
            return {**super().compute(), "loss": sum(losses) / len(losses)}


class Separate(Sound):
    class metric(PairMetric):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.total = 0.0

        def update(self, outputs, targets):
            super().update(outputs, targets)
            self.total += float(((outputs.main - targets) ** 2).mean(1).sum())

        def compute(self):
            values = super().compute()
            return {**values, "loss": self.total / max(values["images"], 1)}


class Stateless(Sound):
    class metric(PairMetric):
        def state_dict(self):
            return {"sums": self.sums, "rows": self.rows}  # no copies


class Backwards(Sound):
    class metric(PairMetric):
        def score(self, values):
            return (values["loss"],)


class Rescored(Sound):
    class metric(PairMetric):
        def score(self, values):
            return (1 / (1 + values["loss"]),)


class Undirected(Sound):
    directions = {"loss": "min", "accuracy": "max"}


class Tupled(Sound):
    def predict(self, outputs, images, schema, *, top=5, out=None):
        return [{"predictions": [{"pair": tuple(pair)}]} for pair in outputs.main.tolist()]


class Tensors(Sound):
    def predict(self, outputs, images, schema, *, top=5, out=None):
        return [{"predictions": [{"pair": pair}]} for pair in outputs.main]


class Relative(Sound):
    def predict(self, outputs, images, schema, *, top=5, out=None):
        scaled = outputs.main - outputs.main.mean(0)
        return [{"predictions": [{"pair": pair}]} for pair in scaled.tolist()]


for task in Sound.__subclasses__():
    task.name = task.__name__.lower()


class Misnamed(Sound):
    pass
'''

# By task: the check that fails, and a part of its detail.
TASK_FAULTS = {
    "misnamed": ("has_its_name", "Misnamed has the name 'sound'"),
    "unseeded": ("gives_example_data", "the same seed creates different data"),
    "dataless": ("gives_example_data", "has no example data; implement Dataless.example_data"),
    "forgetful": ("schema_survives_json", "scale=0.1) is restored as Pair"),
    "ragged": ("targets_collate", "the targets of 1 samples collate to [2]"),
    "doubled": ("targets_of_cached_features", "[7, 2] torch.float64, and batches have [7, 2]"),
    "credulous": ("reads_what_the_network_returns", "read_output accepts None"),
    "halved": ("combines_heads_as_the_network", "the network does more after its head"),
    "detached": ("loss_trains", "the term 'main' has no gradient"),
    "upward": ("loss_trains", "100 optimizer steps change it from"),
    "infinite": ("loss_trains", "not a finite scalar"),
    "vector": ("loss_trains", "the term 'main' is [7]"),
    "summed": ("loss_is_a_mean", "over micro-batches of (1, 1, 1, 1, 1, 1, 1)"),
    "nameless": ("metric_names_its_numbers", "compute() does not return accuracy"),
    "undirected": ("metric_names_its_numbers", "directions contain accuracy, which compute()"),
    "unreserved": ("metric_names_its_numbers", "detail is not reserved"),
    "undefined": ("metric_names_its_numbers", "loss is nan, not a finite number"),
    "averaging": ("metric_ignores_batches", "one batch and batches of (3, 4): loss is"),
    "separate": ("metric_merges", "merged partitions of (1, 1, 1, 1, 1, 1, 1): loss is"),
    "stateless": ("metric_state_is_saved", "saved and restored: "),
    "backwards": ("score_ranks_the_better_higher", "a lower loss does not raise the score"),
    "rescored": ("score_ranks_the_better_higher", "and loss, the first of directions, is"),
    "tupled": ("predictions_survive_json", "predictions change in a JSON round trip"),
    "tensors": ("predictions_survive_json", "is not JSON-serializable"),
    "relative": ("predictions_survive_json", "in a batch and alone: predictions[0].pair[0] is"),
}
