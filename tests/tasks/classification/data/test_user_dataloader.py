"""Splits of a `DataLoader` of the user."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import zoo
from tests.user_datasets import Images
from zoo.tasks.classification.data.user_dataset import LoaderSplit, open_dataset

OPTIONS = {"seed": 0, "val_fraction": 0.25}


def loader(images, labels):
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def test_dataloader_batches_are_used_unchanged():
    images, labels = torch.rand(10, 3, 16, 16), torch.arange(10) % 2
    data = open_dataset({"train": loader(images, labels), "val": loader(images, labels)}, **OPTIONS)
    train = data.splits["train"]
    assert isinstance(train, LoaderSplit)
    assert (len(train), data.batch_size, data.classes) == (10, 4, ("0", "1"))
    batches = list(train.batches())
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), images)
    with pytest.raises(zoo.DataError, match="not single images"):
        train.image(0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda items: {"image": 1}, "yields a dict"),
        (lambda items: (1, 2, 3), "yields a tuple"),
        (lambda items: (torch.zeros(2, 3), torch.zeros(2)), r"images \[n, c, h, w\]"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.zeros(3)), r"labels \[n\]"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.tensor([0, 7])), "labels 0 to 7"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.tensor([0.7, 1])), "not integers"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.full((2,), torch.nan)), "not integers"),
        (lambda items: (torch.zeros(2, 3, 4, 4), ["cat", "dog"]), "not integers"),
    ],
)
def test_dataloader_with_invalid_batches_is_rejected(batch, message):
    batches = DataLoader(Images(), batch_size=4, collate_fn=batch)
    split = open_dataset({"train": batches, "val": batches}, **OPTIONS).splits["train"]
    with pytest.raises(zoo.DataError, match=message):
        list(split.batches())
