"""Fingerprint of a data set: split, class, path and size of every image."""

import hashlib

from zoo.data.split_choice import fingerprint

PARTS = {"train": {"bird": [("a.png", 10), ("b.png", 11)], "flag": [("c.png", 12)]}, "val": {}}


def test_fingerprint_is_sha256_of_every_fact():
    facts = ("train", "a.png", "bird", "10", "train", "b.png", "bird", "11")
    facts += ("train", "c.png", "flag", "12")
    digest = hashlib.sha256("".join(f"{fact}\0" for fact in facts).encode())
    assert fingerprint(PARTS) == digest.hexdigest()


def test_fingerprint_changes_with_split_class_path_and_size():
    others = [
        PARTS,
        {"val": PARTS["train"]},
        {"train": {"bird": [("a.png", 10), ("b.png", 11), ("c.png", 12)]}},
        {"train": {"bird": [("a.png", 10), ("d.png", 11)], "flag": [("c.png", 12)]}},
        {"train": {"bird": [("a.png", 10), ("b.png", 12)], "flag": [("c.png", 12)]}},
        {"train": {"bird": [("b.png", 11), ("a.png", 10)], "flag": [("c.png", 12)]}},
    ]
    assert len({fingerprint(parts) for parts in others}) == len(others)


def test_fingerprint_is_that_of_composed_accents():
    composed, decomposed = ({"train": {name: [(f"{name}.png", 1)]}} for name in ("é", "e\u0301"))
    assert fingerprint(composed) == fingerprint(decomposed)
