"""Evaluation of a split: modes, batches of one size, and the numbers."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn

import zoo
from zoo.data.schema import Schema
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.tasks.classification.data.published import PublishedSplit
from zoo.tasks.classification.task import ImageClassification

CLASSES = tuple("abcdefg")
LABELS = (0, 0, 0, 0, 1, 1, 2, 3, 3, 5, 6, 6, 6)  # uneven, one class absent


class Small(nn.Module):
    """A network with all that differs between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(6, len(CLASSES))

    def forward(self, x):
        return self.fc(self.stem(x).mean((2, 3)) * 30)


def test_evaluation_equals_scikit_learn_in_batches_of_one_size():
    torch.manual_seed(0)
    module, cpu, task = Small(), torch.device("cpu"), ImageClassification()
    preprocess = zoo.Preprocess(size=12, resize=12)
    network = Network(module, [zoo.Head("fc")], preprocess, cpu, "fp32", task)
    pixels = np.random.default_rng(0).integers(0, 256, (len(LABELS), 12, 12, 3), np.uint8)
    split = PublishedSplit("val", pixels, LABELS, ("x",) * len(LABELS))
    sizes = []
    module.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    reader = ImageReader(task.transform(preprocess), cpu, batch_size=5)
    metric = evaluate_split(network, split, reader, task.metric(Schema(CLASSES), cpu))
    # Rounding in a kernel depends on the batch size.
    assert sizes == [5, 5, 5]
    assert network.forwards == len(LABELS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())

    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    images = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        probabilities = module.eval()(images).double().softmax(1).numpy()
    values, known = metric.report(), range(len(CLASSES))
    assert values["images"] == len(LABELS)
    assert values["loss"] == pytest.approx(log_loss(LABELS, probabilities, labels=known), rel=1e-5)
    predicted = probabilities.argmax(1)
    assert values["top1"] == pytest.approx(accuracy_score(LABELS, predicted))
    top5 = top_k_accuracy_score(LABELS, probabilities, k=5, labels=known)
    assert values["top5"] == pytest.approx(top5)
    assert top5 < 1
    assert values["confusion"] == confusion_matrix(LABELS, predicted, labels=known).tolist()
