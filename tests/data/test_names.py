"""Names of splits, of classes and of files."""

import unicodedata

import pytest

from zoo.data.names import affixed_split, nfc, sort_classes, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Training TRAIN training_set train-images TrainSet train2017 images_train"),
        ("val", "val valid Validation validation_set val2017 imgs-val ValidData eval"),
        ("test", "test Testing test_set TestImages test2014 test_dataset"),
        (None, "cat dev trained strain value valet tests1 testament bullet_train train_cat set"),
    ],
)
def test_split_of_reads_variants_only(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def test_affixed_split_returns_the_rest():
    assert affixed_split("seg_train") == ("train", "seg")
    assert affixed_split("Test Cats") == ("test", "cats")
    assert affixed_split("flowers-big-valid") == ("val", "flowers big")
    assert affixed_split("01_train") == affixed_split("train1") == ("train", "")
    for name in ("train", "cats", "train_test", "pretrained_cats", ""):
        assert affixed_split(name) is None


def test_nfc_makes_spellings_equal():
    composed, decomposed = (
        unicodedata.normalize(form, "Pájaro Łódź 한") for form in ("NFC", "NFD")
    )
    assert composed != decomposed
    assert nfc(decomposed) == nfc(composed) == composed
    assert nfc("plain \udcff") == "plain \udcff"


def test_integer_classes_are_sorted_by_value():
    assert sort_classes(["10", "9", "-1", "1", "01"]) == ["-1", "01", "1", "9", "10"]
    assert sort_classes(["10", "9", "a"]) == ["10", "9", "a"]
    assert sort_classes(["b10", "b9", "B"]) == ["B", "b10", "b9"]
