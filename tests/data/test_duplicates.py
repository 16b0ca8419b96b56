"""Images with equal content, across splits and classes."""

from hashlib import sha256

from zoo.data.duplicates import find_duplicates
from zoo.data.split import FileSplit


def splits_of(tmp_path, **contents):
    splits = {}
    for name, files in contents.items():
        paths = tuple(path for path, _ in files)
        splits[name] = FileSplit(name, tmp_path / name, paths, tuple(label for _, label in files))
    return splits


def digests_of(**contents):
    return {
        name: [sha256(text.encode()).digest() if text else b"" for text in texts]
        for name, texts in contents.items()
    }


def test_duplicates_are_found_by_content(tmp_path):
    splits = splits_of(
        tmp_path,
        train=[("cat/1.png", 0), ("cat/2.png", 0), ("dog/3.png", 1), ("dog/4.png", 1)],
        val=[("cat/9.png", 0), ("dog/1.png", 1)],
        test=[("dog/7.png", 1), ("dog/8.png", 1)],
    )
    digests = digests_of(
        train=["one", "two", "two", ""], val=["one", "three"], test=["one", "three"]
    )
    found = find_duplicates(splits, digests, ("cat", "dog"))
    one = [str(tmp_path / path) for path in ("train/cat/1.png", "val/cat/9.png", "test/dog/7.png")]
    assert found.pairs == {("train", "val"): 1, ("train", "test"): 1, ("val", "test"): 1}
    assert found.across_splits[0] == tuple(zip(one, ("train", "val", "test"), strict=True))
    assert [dict(group) for group in found.across_classes] == [
        dict(zip(one, ("cat", "cat", "dog"), strict=True)),
        {str(tmp_path / "train/cat/2.png"): "cat", str(tmp_path / "train/dog/3.png"): "dog"},
    ]
    lines = found.notices()
    assert len(lines) == 4
    assert lines[0].startswith("1 image of val is in train too")
    assert lines[3].startswith("2 images are under several classes: ")


def test_equal_names_and_sizes_are_no_duplicates(tmp_path):
    splits = splits_of(tmp_path, train=[("cat/1.png", 0)], val=[("cat/1.png", 0)])
    found = find_duplicates(splits, digests_of(train=["aaaa"], val=["bbbb"]), ("cat",))
    assert found.notices() == []
    assert found.to_dict() == {"across_splits": [], "across_classes": [], "repeated": 0}


def test_copies_within_a_class_are_counted(tmp_path):
    splits = splits_of(tmp_path, train=[(f"cat/{n}.png", 0) for n in range(5)])
    found = find_duplicates(splits, digests_of(train=["a", "a", "a", "b", "b"]), ("cat",))
    assert (found.repeated, found.notices()) == (3, [])


def test_large_group_is_shortened(tmp_path):
    train = [(f"cat/{n}.png", 0) for n in range(8)]
    splits = splits_of(tmp_path, train=train, val=[("dog/0.png", 1)])
    found = find_duplicates(splits, digests_of(train="aaaaaaaa", val="a"), ("cat", "dog"))
    shown = "train/cat/0.png{0} = val/dog/0.png{1}"
    shown += "".join(f" = train/cat/{n}.png{{0}}" for n in (1, 2, 3)) + " and 4 more"
    across_splits, across_classes = found.notices(tmp_path)
    assert across_splits.endswith(f": {shown.format('', '')}")
    assert across_classes.endswith(f": {shown.format(' (cat)', ' (dog)')}")
    assert len(found.to_dict()["across_classes"][0]) == 9


def test_targets_other_than_classes_are_not_compared(tmp_path):
    splits = splits_of(tmp_path, train=[("1.png", 0.5), ("2.png", 0.7)])
    found = find_duplicates(splits, digests_of(train=["a", "a"]))
    assert found.across_classes == ()
    assert find_duplicates(splits, {"train": [bytes(32)] * 2}).repeated == 0
