"""Splits and classes of a `Dataset` of the user, and errors of unusable ones."""

import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision.datasets import FakeData, ImageFolder

import zoo
from tests.user_datasets import Images
from zoo.data.user_dataset import DatasetSplit
from zoo.tasks.classification.data.sources import EMBEDDED, open_data, open_split
from zoo.tasks.classification.data.user_dataset import (
    LoaderSplit,
    open_dataset,
    open_dataset_split,
)

OPTIONS = {"seed": 0, "val_fraction": 0.25}


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


class NoLength(Dataset):
    def __getitem__(self, index):
        return Image.new("RGB", (8, 8)), 0


def test_share_of_each_class_is_held_out():
    data = open_dataset(Images(), **OPTIONS)
    train, val = data.splits["train"], data.splits["val"]
    assert sorted((*train.indices, *val.indices)) == list(range(12))
    assert train.counts(3) == (3, 3, 3)
    assert val.counts(3) == (1, 1, 1)
    assert "25 % of each class held out by seed 0" in data.reason
    assert open_dataset(Images(), **OPTIONS).splits["val"].indices == val.indices
    others = {
        open_dataset(Images(), seed=seed, val_fraction=0.25).splits["val"].indices
        for seed in range(8)
    }
    assert len(others) > 1


def test_class_with_single_item_is_only_in_train():
    data = open_dataset(Images(item_labels=[0, 0, 0, 1]), **OPTIONS)
    assert data.splits["train"].counts(2) == (2, 1)
    with pytest.raises(zoo.DataError, match="single item"):
        open_dataset(Images(item_labels=[0, 1, 2]), **OPTIONS)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_mapping_of_splits_is_used_unchanged(name):
    parts = {"train": Images(), name: Images(count=6), "test": Images(count=9)}
    data = open_dataset(parts, **OPTIONS)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 6,
        "test": 9,
    }
    assert data.reason == "splits as given"
    assert data.name == "your Images"
    assert not data.deterministic


def test_torchvision_datasets_and_torch_wrappers():
    folder = ImageFolder(EMBEDDED / "val")
    data = open_data(folder)
    assert data.classes == tuple(folder.classes)
    fake = FakeData(20, (3, 24, 24), num_classes=2)
    assert open_data(fake).classes == ("0", "1")
    generator = torch.Generator().manual_seed(0)
    train, val = random_split(folder, [0.7, 0.3], generator)
    split = open_data({"train": train, "val": val})
    assert split.classes == tuple(folder.classes)
    assert split.splits["train"].targets == tuple(folder.targets[item] for item in train.indices)
    both = open_data({"train": ConcatDataset([train, val]), "val": val})
    assert both.classes == tuple(folder.classes)
    expected = [folder.targets[item] for part in (train, val) for item in part.indices]
    assert both.splits["train"].targets == tuple(expected)


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [0, 1, 2] * 4},
        {"labels": np.array([0, 1, 2] * 4)},
        {"targets": torch.tensor([0, 1, 2] * 4)},
        {"targets": None, "labels": [0, 1, 2] * 4},
    ],
)
def test_labels_attribute_avoids_reading_items(attributes):
    dataset = Images(**attributes)
    assert open_dataset({"train": dataset, "val": dataset}, **OPTIONS).splits["val"].targets[
        :3
    ] == (
        0,
        1,
        2,
    )
    assert dataset.read == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": ["a", "b", "c"] * 4},
        {"targets": [0, 1, 2]},
        {"labels": [{"box": 1}] * 12},
        {"targets": [[0, 1]] * 12},
        {"labels": [[0, 1], [2]] * 6},
        {"targets": [0] * 12, "target_transform": abs},
    ],
    ids=["names", "too few", "boxes", "pairs", "lists", "transformed"],
)
def test_unusable_labels_attribute_reads_items(attributes):
    dataset = Images(**attributes)
    split = open_dataset({"train": dataset, "val": dataset}, **OPTIONS).splits["train"]
    assert split.targets == (0, 1, 2) * 4


def test_target_transform_is_applied_to_labels():
    folder = ImageFolder(EMBEDDED / "val", target_transform=lambda label: label % 2)
    data = open_data(Subset(folder, range(0, len(folder), 2)))
    assert set(data.splits["train"].targets) == {0, 1}


def test_class_names_default_to_numbers():
    assert open_dataset(Images(classes=["a", "b", "c"]), **OPTIONS).classes == ("a", "b", "c")
    assert open_dataset(Images(), **OPTIONS).classes == ("0", "1", "2")
    assert open_dataset(Images(), **OPTIONS, classes=5).classes == ("0", "1", "2", "3", "4")
    assert open_dataset(Images(classes=3), **OPTIONS).classes == ("0", "1", "2")
    assert open_dataset(Images(classes=np.array(["a", "b", "c"])), **OPTIONS).classes[0] == "a"


def test_splits_with_different_class_names_are_rejected():
    parts = {"train": Images(classes=["a", "b", "c"]), "val": Images(classes=["b", "a", "c"])}
    with pytest.raises(zoo.DataError, match="train: a, b, c; val: b, a, c"):
        open_dataset(parts, **OPTIONS)


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [(-1, None, "item 11 of data['train'] is -1"), (3, 3, "is 3; 3 classes are 0 to 2")],
)
def test_label_out_of_range_is_rejected(label, classes, message):
    labels = [*([0, 1, 2] * 4)[:11], label]
    with pytest.raises(zoo.DataError) as caught:
        open_dataset(Images(item_labels=labels), **OPTIONS, classes=classes)
    assert message in str(caught.value)


def test_labels_of_one_class_are_rejected():
    one = Images(item_labels=[1] * 12, classes=["oak", "ash"])
    with pytest.raises(
        zoo.DataError, match=r"all labels of data\['train'\] are 1, of the class ash"
    ):
        open_dataset(one, **OPTIONS)
    assert open_dataset({"train": Images(), "val": Images(item_labels=[1, 1])}, **OPTIONS).own_val


def test_label_without_a_name_is_rejected():
    with pytest.raises(zoo.DataError, match=r"item 2 .* is 2; 2 classes are 0 to 1: oak, ash"):
        open_dataset(Images(classes=["oak", "ash"]), **OPTIONS)


@pytest.mark.parametrize("label", [0.5, "flag", None, torch.tensor([1, 0, 0])])
def test_non_integer_label_is_rejected(label):
    with pytest.raises(zoo.DataError, match="label of item 1 of the Images") as caught:
        open_dataset(Images(item_labels=[0, label, 1]), **OPTIONS)
    assert "targets" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ({}, zoo.UsageError, "splits none"),
        ({"val": Images()}, zoo.UsageError, "splits val"),
        ({"train": Images(), "dev": Images()}, zoo.UsageError, "train, dev"),
        ([1, 2], zoo.UsageError, "data is a list"),
        ({"train": [1, 2]}, zoo.UsageError, r"data\['train'\] is a list"),
        (Endless(), zoo.UsageError, "Endless, not a Dataset with a length"),
        (NoLength(), zoo.UsageError, "NoLength that states no length"),
        (DataLoader(Endless()), zoo.UsageError, "Endless, not a Dataset"),
        (Images(count=0), zoo.DataError, "data is empty"),
        (Subset(Images(), []), zoo.DataError, "data is empty"),
        (DataLoader(Images()), zoo.UsageError, "DataLoader cannot be split"),
        (Images(item_labels=[0] * 5), zoo.DataError, "1 class"),
    ],
)
def test_open_dataset_rejects_unusable_source(source, kind, message):
    with pytest.raises(kind, match=message):
        open_dataset(source, **OPTIONS)


def test_batch_size_attribute_of_dataset_is_ignored():
    assert open_dataset(Images(batch_size=5), **OPTIONS).batch_size is None


def test_open_dataset_split_selects_split():
    classes = ("0", "1", "2")
    whole = open_dataset_split(Images(), classes, None)
    assert isinstance(whole, DatasetSplit)
    assert (whole.name, len(whole)) == ("all", 12)
    parts = {"train": Images(), "valid": Images(count=3), "test": Images(count=6)}
    assert open_dataset_split(parts, classes, None).name == "test"
    assert len(open_dataset_split(parts, classes, "val")) == 3
    assert len(open_dataset_split({"train": Images()}, classes, None)) == 12
    assert isinstance(open_dataset_split(DataLoader(Images()), classes, None), LoaderSplit)
    with pytest.raises(zoo.DataError, match="no split 'val'; it has train"):
        open_dataset_split({"train": Images()}, classes, "val")
    with pytest.raises(zoo.UsageError, match="data is a list"):
        open_dataset_split([1], classes, None)
    with pytest.raises(zoo.DataError, match="classes are 0 to 1"):
        open_dataset_split(Images(), ("a", "b"), None)


def test_open_dataset_split_rejects_other_classes():
    named = Images(classes=["a", "b", "c"])
    assert len(open_dataset_split(named, ("a", "b", "c"), None)) == 12
    for part in (named, Subset(named, [0, 1, 2]), ConcatDataset([named]), DataLoader(named)):
        with pytest.raises(zoo.DataError, match="not the model's, in its order: a, b, c"):
            open_dataset_split(part, ("b", "a", "c"), None)


def test_declared_names_match_whatever_their_accents() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Pájaro") for form in ("NFC", "NFD"))
    dataset = TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4) % 2)
    dataset.classes = ["Pez", decomposed]  # type: ignore[attr-defined]
    assert open_data(dataset).classes == ("Pez", composed)
    for name in (composed, decomposed):
        assert len(open_split(dataset, ("Pez", name))) == 4


def test_fraction_zero_trains_on_all_items() -> None:
    dataset = TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4) % 2)
    data = open_data(dataset, val_fraction=0.0)
    assert (list(data.splits), len(data.splits["train"]), data.own_val) == (["train"], 4, False)
    assert open_data({"train": dataset, "val": dataset}, val_fraction=0.0).own_val
