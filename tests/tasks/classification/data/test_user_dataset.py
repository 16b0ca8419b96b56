"""A `Dataset` or `DataLoader` of one's own: as splits like any other, or refused with a reason."""

import re

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
from zoo.tasks.classification.data.sources import EMBEDDED, open_data
from zoo.tasks.classification.data.user_dataset import (
    LoaderSplit,
    open_own,
    open_own_split,
)

SMALL = zoo.Preprocess(size=16)
HELD = {"seed": 0, "val_fraction": 0.25}


class Pictures(Dataset):
    """Twelve pictures of three classes, of whatever kind `make` gives; more attributes as given."""

    def __init__(self, make=None, own=None, count=12, **stated):
        self.make = make or (lambda index: Image.new("RGB", (20, 24), (10 * index, 0, 0)))
        self.own = [index % 3 for index in range(count)] if own is None else own
        self.asked = []
        self.__dict__.update(stated)

    def __len__(self):
        return len(self.own)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.make(index), self.own[index]


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
def test_pictures_of_every_kind_are_prepared_as_files_are(make):
    split = open_own(Pictures(make), **HELD).splits["train"]
    for index in range(len(split)):
        sample = read_sample(split, SampleTransform(SMALL), index)
        expected = prepare(Image.fromarray(red(split.indices[index])), SMALL)
        assert torch.equal(sample.input, expected)
        assert sample.target == split.indices[index] % 3
        assert split.picture(index).mode == "RGB"


def test_floats_are_taken_as_they_are():
    images = torch.randn(12, 3, 16, 16)
    data = open_own(TensorDataset(images, torch.arange(12) % 3), **HELD)
    split = data.splits["train"]
    for index, place in enumerate(split.indices):
        assert torch.equal(read_sample(split, SampleTransform(SMALL), index).input, images[place])
    bad = read_sample(split, SampleTransform(zoo.Preprocess(size=20)), 0)
    assert "it is [3, 16, 16], and the network sees [3, 20, 20]" in bad.reason
    assert "zoo.transform" in bad.reason
    with pytest.raises(zoo.DataError, match="prepared already"):
        split.picture(0)


def test_a_share_of_each_class_is_held_out_by_seed():
    data = open_own(Pictures(), **HELD)
    train, val = data.splits["train"], data.splits["val"]
    assert sorted((*train.indices, *val.indices)) == list(range(12))
    assert train.counts(3) == (3, 3, 3)
    assert val.counts(3) == (1, 1, 1)
    assert "25 % of each class held out by seed 0" in data.reason
    assert open_own(Pictures(), **HELD).splits["val"].indices == val.indices
    others = {
        open_own(Pictures(), seed=seed, val_fraction=0.25).splits["val"].indices
        for seed in range(8)
    }
    assert len(others) > 1


def test_a_class_of_one_item_is_trained_on():
    data = open_own(Pictures(own=[0, 0, 0, 1]), **HELD)
    assert data.splits["train"].counts(2) == (2, 1)
    with pytest.raises(zoo.DataError, match="single item"):
        open_own(Pictures(own=[0, 1, 2]), **HELD)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_splits_as_given(name):
    parts = {"train": Pictures(), name: Pictures(count=6), "test": Pictures(count=9)}
    data = open_own(parts, **HELD)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 6,
        "test": 9,
    }
    assert data.reason == "splits as given"
    assert data.name == "your Pictures"
    assert not data.deterministic


def test_torchvision_and_the_wrappers_of_torch():
    folder = ImageFolder(EMBEDDED / "val")
    data = open_data(folder)
    assert data.classes == tuple(folder.classes)
    fake = FakeData(20, (3, 24, 24), num_classes=2)
    assert open_data(fake).classes == ("0", "1")
    generator = torch.Generator().manual_seed(0)
    train, val = random_split(folder, [0.7, 0.3], generator)
    split = open_data({"train": train, "val": val})
    assert split.classes == tuple(folder.classes)
    assert split.splits["train"].targets == tuple(folder.targets[place] for place in train.indices)
    both = open_data({"train": ConcatDataset([train, val]), "val": val})
    assert both.classes == tuple(folder.classes)
    expected = [folder.targets[place] for part in (train, val) for place in part.indices]
    assert both.splits["train"].targets == tuple(expected)


@pytest.mark.parametrize(
    "stated",
    [
        {"targets": [0, 1, 2] * 4},
        {"labels": np.array([0, 1, 2] * 4)},
        {"targets": torch.tensor([0, 1, 2] * 4)},
        {"targets": None, "labels": [0, 1, 2] * 4},
    ],
)
def test_stated_labels_are_not_read_from_items(stated):
    dataset = Pictures(**stated)
    assert open_own({"train": dataset, "val": dataset}, **HELD).splits["val"].targets[:3] == (
        0,
        1,
        2,
    )
    assert dataset.asked == []


@pytest.mark.parametrize(
    "stated",
    [
        {"targets": ["a", "b", "c"] * 4},
        {"targets": [0, 1, 2]},
        {"labels": [{"box": 1}] * 12},
        {"targets": [[0, 1]] * 12},
        {"targets": [0] * 12, "target_transform": abs},
    ],
    ids=["names", "too few", "boxes", "pairs", "transformed"],
)
def test_what_states_no_labels_is_read_item_by_item(stated):
    dataset = Pictures(**stated)
    split = open_own({"train": dataset, "val": dataset}, **HELD).splits["train"]
    assert split.targets == (0, 1, 2) * 4


def test_a_target_transform_makes_the_labels():
    folder = ImageFolder(EMBEDDED / "val", target_transform=lambda label: label % 2)
    data = open_data(Subset(folder, range(0, len(folder), 2)))
    assert set(data.splits["train"].targets) == {0, 1}


def test_names_of_classes():
    assert open_own(Pictures(classes=["a", "b", "c"]), **HELD).classes == ("a", "b", "c")
    assert open_own(Pictures(), **HELD).classes == ("0", "1", "2")
    assert open_own(Pictures(), **HELD, classes=5).classes == ("0", "1", "2", "3", "4")
    # Fewer names than labels are no names of these labels.
    assert open_own(Pictures(classes=["a"]), **HELD).classes == ("0", "1", "2")


def test_splits_that_name_other_classes_are_refused():
    parts = {"train": Pictures(classes=["a", "b", "c"]), "val": Pictures(classes=["b", "a", "c"])}
    with pytest.raises(zoo.DataError, match="train: a, b, c; val: b, a, c"):
        open_own(parts, **HELD)


@pytest.mark.parametrize(
    ("label", "classes", "said"),
    [(-1, None, "item 11 of data['train'] is -1"), (3, 3, "is 3; 3 classes are 0 to 2")],
)
def test_labels_out_of_range_are_refused(label, classes, said):
    labels = [*([0, 1, 2] * 4)[:11], label]
    with pytest.raises(zoo.DataError) as caught:
        open_own(Pictures(own=labels), **HELD, classes=classes)
    assert said in str(caught.value)


@pytest.mark.parametrize("label", [0.5, "flag", None, torch.tensor([1, 0, 0])])
def test_labels_that_are_no_numbers_are_refused(label):
    with pytest.raises(zoo.DataError, match="label of item 1 of the Pictures") as caught:
        open_own(Pictures(own=[0, label, 1]), **HELD)
    assert "targets" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ({}, zoo.UsageError, "splits none"),
        ({"val": Pictures()}, zoo.UsageError, "splits val"),
        ({"train": Pictures(), "dev": Pictures()}, zoo.UsageError, "train, dev"),
        ([1, 2], zoo.UsageError, "data is a list"),
        ({"train": [1, 2]}, zoo.UsageError, r"data\['train'\] is a list"),
        (Endless(), zoo.UsageError, "Endless, not a Dataset with a length"),
        (NoLength(), zoo.UsageError, "NoLength that states no length"),
        (DataLoader(Endless()), zoo.UsageError, "Endless, not a Dataset"),
        (Pictures(count=0), zoo.DataError, "data is empty"),
        (Subset(Pictures(), []), zoo.DataError, "data is empty"),
        (DataLoader(Pictures()), zoo.UsageError, "DataLoader cannot be split"),
        (Pictures(own=[0] * 5), zoo.DataError, "1 class"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(source, kind, said):
    with pytest.raises(kind, match=said):
        open_own(source, **HELD)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("words", "a str is no image"),
        (np.zeros((2, 3, 4, 5)), "no image"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "no image"),
        (torch.zeros(5, 16, 16), r"\[5, 16, 16\], and the network sees \[3, 16, 16\]"),
    ],
)
def test_items_that_are_no_pictures_are_bad_images(made, said):
    split = open_own(Pictures(lambda _: made), **HELD).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(bad, BadImage)
    assert bad.path == f"item {split.indices[0]} of the Pictures"
    assert len(bad.reason.splitlines()) == 1
    assert re.search(said, bad.reason)


def test_a_dataset_that_raises_is_named_with_what_it_said():
    def make(index):
        raise KeyError(f"no picture {index}")

    dataset = Pictures(make, targets=[0, 1, 2] * 4)
    split = open_own(dataset, **HELD).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert "KeyError: 'no picture" in bad.reason
    with pytest.raises(zoo.DataError, match=r"label of item 0 of the Pictures.*KeyError"):
        open_own(Pictures(make), **HELD)


def test_a_picture_has_the_channels_that_the_network_sees():
    split = open_own(Pictures(), **HELD).splits["train"]
    four = zoo.Preprocess(size=16, mean=(0.5,) * 4, std=(0.5,) * 4)
    assert (
        "3 channels, and the network sees 4" in read_sample(split, SampleTransform(four), 0).reason
    )
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert read_sample(split, SampleTransform(grey), 0).input.shape == (1, 16, 16)


def noise(index):
    return torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)


@pytest.mark.parametrize("augment", [None, "flip,color"])
def test_what_a_dataset_draws_follows_from_the_seed_whatever_the_workers(augment):
    split = open_own(Pictures(noise), **HELD).splits["train"]

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


def test_workers_read_what_one_process_reads():
    split = open_own(Pictures(), **HELD).splits["train"]
    alone = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 0))
    two = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 2))
    for one, other in zip(alone, two, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def loader(images, labels, **options):
    return DataLoader(TensorDataset(images, labels), batch_size=4, **options)


def test_a_dataset_decides_no_batches():
    assert open_own(Pictures(batch_size=5), **HELD).batch_size is None


def test_loaders_give_their_own_batches():
    images, labels = torch.rand(10, 3, 16, 16), torch.arange(10) % 2
    data = open_own({"train": loader(images, labels), "val": loader(images, labels)}, **HELD)
    train = data.splits["train"]
    assert isinstance(train, LoaderSplit)
    assert (len(train), data.batch_size, data.classes) == (10, 4, ("0", "1"))
    batches = list(train.batches())
    assert [len(found) for _, found in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([found for found, _ in batches]), images)
    with pytest.raises(zoo.DataError, match="no single images"):
        train.picture(0)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (lambda items: {"image": 1}, "yields a dict"),
        (lambda items: (1, 2, 3), "yields a tuple"),
        (lambda items: (torch.zeros(2, 3), torch.zeros(2)), r"images \[n, c, h, w\]"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.zeros(3)), r"labels \[n\]"),
        (lambda items: (torch.zeros(2, 3, 4, 4), torch.tensor([0, 7])), "labels 0 to 7"),
    ],
)
def test_loaders_of_other_things_are_refused(batch, said):
    made = DataLoader(Pictures(), batch_size=4, collate_fn=batch)
    split = open_own({"train": made, "val": made}, **HELD).splits["train"]
    with pytest.raises(zoo.DataError, match=said):
        list(split.batches())


def test_what_a_model_is_evaluated_on():
    classes = ("0", "1", "2")
    whole = open_own_split(Pictures(), classes, None)
    assert isinstance(whole, DatasetSplit)
    assert (whole.name, len(whole)) == ("all", 12)
    parts = {"train": Pictures(), "valid": Pictures(count=3), "test": Pictures(count=6)}
    assert open_own_split(parts, classes, None).name == "test"
    assert len(open_own_split(parts, classes, "val")) == 3
    assert len(open_own_split({"train": Pictures()}, classes, None)) == 12
    assert isinstance(open_own_split(DataLoader(Pictures()), classes, None), LoaderSplit)
    with pytest.raises(zoo.DataError, match="no split 'val'; it has train"):
        open_own_split({"train": Pictures()}, classes, "val")
    with pytest.raises(zoo.UsageError, match="data is a list"):
        open_own_split([1], classes, None)
    with pytest.raises(zoo.DataError, match="classes are 0 to 1"):
        open_own_split(Pictures(), ("a", "b"), None)


def test_classes_that_are_not_the_models_are_refused():
    named = Pictures(classes=["a", "b", "c"])
    assert len(open_own_split(named, ("a", "b", "c"), None)) == 12
    for part in (named, Subset(named, [0, 1, 2]), ConcatDataset([named]), DataLoader(named)):
        with pytest.raises(zoo.DataError, match="not the model's, in its order: a, b, c"):
            open_own_split(part, ("b", "a", "c"), None)


def test_floats_and_bytes_come_out_alike():
    """A dataset that prepares by `zoo.transform` gives what zoo prepares by itself."""
    folder = ImageFolder(EMBEDDED / "val")
    path = folder.samples[0][0]
    mine = zoo.transform(SMALL)(path)
    split = open_own_split(folder, folder.classes, None)
    theirs = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(theirs, Sample)
    assert torch.equal(normalize(theirs.input[None], SMALL)[0], mine)
