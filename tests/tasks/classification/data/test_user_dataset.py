"""Splits of a `Dataset` or `DataLoader` of the user, and errors of unusable ones."""

import re
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
from zoo.data.augment import Draw
from zoo.data.dataset import BadImage, Sample, SampleTransform, read_sample
from zoo.data.loader import load_batches
from zoo.data.transforms import normalize, prepare
from zoo.data.user_dataset import DatasetSplit
from zoo.options import Augmentation
from zoo.tasks.classification.data.sources import EMBEDDED, open_data, open_split
from zoo.tasks.classification.data.user_dataset import (
    LoaderSplit,
    open_dataset,
    open_dataset_split,
)

SMALL = zoo.Preprocess(size=16)
OPTIONS = {"seed": 0, "val_fraction": 0.25}


class Images(Dataset):
    """Twelve images of three classes, returned by `make`, with further attributes."""

    def __init__(self, make=None, item_labels=None, count=12, **attributes):
        self.make = make or (lambda index: Image.new("RGB", (20, 24), (10 * index, 0, 0)))
        self.item_labels = (
            [index % 3 for index in range(count)] if item_labels is None else item_labels
        )
        self.read = []
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.item_labels)

    def __getitem__(self, index):
        self.read.append(index)
        return self.make(index), self.item_labels[index]


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


class NoLength(Dataset):
    def __getitem__(self, index):
        return Image.new("RGB", (8, 8)), 0


def red(index):
    return np.full((24, 20, 3), 10 * index, dtype=np.uint8)


@pytest.mark.parametrize(
    "make",
    [
        lambda index: Image.fromarray(red(index)),
        red,
        lambda index: torch.from_numpy(red(index)).permute(2, 0, 1),
        lambda index: torch.full((1, 24, 20), 10 * index, dtype=torch.uint8),
        lambda index: torch.full((24, 20), 10 * index, dtype=torch.uint8),
    ],
    ids=["pil", "array", "tensor", "one channel", "no channel"],
)
def test_images_of_any_type_are_prepared_as_files(make):
    split = open_dataset(Images(make), **OPTIONS).splits["train"]
    for index in range(len(split)):
        sample = read_sample(split, SampleTransform(SMALL), index)
        expected = prepare(Image.fromarray(red(split.indices[index])), SMALL)
        assert torch.equal(sample.input, expected)
        assert sample.target == split.indices[index] % 3
        assert split.image(index).mode == "RGB"


def test_float_tensors_are_passed_unchanged():
    images = torch.randn(12, 3, 16, 16)
    data = open_dataset(TensorDataset(images, torch.arange(12) % 3), **OPTIONS)
    split = data.splits["train"]
    for index, item in enumerate(split.indices):
        assert torch.equal(read_sample(split, SampleTransform(SMALL), index).input, images[item])
    bad = read_sample(split, SampleTransform(zoo.Preprocess(size=20)), 0)
    assert "it is [3, 16, 16], and the network sees [3, 20, 20]" in bad.reason
    assert "zoo.transform" in bad.reason
    with pytest.raises(zoo.DataError, match="prepared already"):
        split.image(0)


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
        {"targets": [0] * 12, "target_transform": abs},
    ],
    ids=["names", "too few", "boxes", "pairs", "transformed"],
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
    # Ignored: fewer names than labels.
    assert open_dataset(Images(classes=["a"]), **OPTIONS).classes == ("0", "1", "2")


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


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("words", "a str is no image"),
        (np.zeros((2, 3, 4, 5)), "float64 is not an image"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "uint8 is not an image"),
        (torch.zeros(5, 16, 16), r"\[5, 16, 16\], and the network sees \[3, 16, 16\]"),
    ],
)
def test_items_without_image_are_bad_images(item, message):
    split = open_dataset(Images(lambda _: item), **OPTIONS).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(bad, BadImage)
    assert bad.path == f"item {split.indices[0]} of the Images"
    assert len(bad.reason.splitlines()) == 1
    assert re.search(message, bad.reason)


def test_exception_of_dataset_is_reported():
    def make(index):
        raise KeyError(f"no image {index}")

    dataset = Images(make, targets=[0, 1, 2] * 4)
    split = open_dataset(dataset, **OPTIONS).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert "KeyError: 'no image" in bad.reason
    with pytest.raises(zoo.DataError, match=r"label of item 0 of the Images.*KeyError"):
        open_dataset(Images(make), **OPTIONS)


def test_read_sample_checks_channels():
    split = open_dataset(Images(), **OPTIONS).splits["train"]
    four = zoo.Preprocess(size=16, mean=(0.5,) * 4, std=(0.5,) * 4)
    assert (
        "3 channels, and the network sees 4" in read_sample(split, SampleTransform(four), 0).reason
    )
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert read_sample(split, SampleTransform(grey), 0).input.shape == (1, 16, 16)


def noise(index):
    return torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)


@pytest.mark.parametrize("augment", [None, "flip,color"])
def test_random_dataset_depends_on_seed_not_workers(augment):
    split = open_dataset(Images(noise), **OPTIONS).splits["train"]

    def images(epoch, workers, seed=0):
        draw = Draw(Augmentation.parse(augment) if augment else None, seed, epoch)
        batches = load_batches(
            split, SampleTransform(SMALL), range(len(split)), 4, workers, draw=draw
        )
        return torch.cat([batch.inputs for batch in batches])

    first = images(1, 0)
    torch.manual_seed(5)
    assert torch.equal(first, images(1, 0))
    assert torch.equal(first, images(1, 2))
    assert not torch.equal(first, images(2, 0))
    assert not torch.equal(first, images(1, 0, seed=1))
    assert len({image.numpy().tobytes() for image in first}) == len(split)


def test_workers_load_equal_batches():
    split = open_dataset(Images(), **OPTIONS).splits["train"]
    alone = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 0))
    two = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 2))
    for one, other in zip(alone, two, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def loader(images, labels, **options):
    return DataLoader(TensorDataset(images, labels), batch_size=4, **options)


def test_batch_size_attribute_of_dataset_is_ignored():
    assert open_dataset(Images(batch_size=5), **OPTIONS).batch_size is None


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
    ],
)
def test_dataloader_with_invalid_batches_is_rejected(batch, message):
    batches = DataLoader(Images(), batch_size=4, collate_fn=batch)
    split = open_dataset({"train": batches, "val": batches}, **OPTIONS).splits["train"]
    with pytest.raises(zoo.DataError, match=message):
        list(split.batches())


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


def test_zoo_transform_equals_internal_preprocessing():
    folder = ImageFolder(EMBEDDED / "val")
    path = folder.samples[0][0]
    expected = zoo.transform(SMALL)(path)
    split = open_dataset_split(folder, folder.classes, None)
    sample = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(sample, Sample)
    assert torch.equal(normalize(sample.input[None], SMALL)[0], expected)


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
