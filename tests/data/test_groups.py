"""Groups of images: held out whole, found in paths, kept on one side."""

from collections import Counter

import pytest

from zoo.data.groups import check_sides, draw_held_out_groups, groups_by
from zoo.errors import DataError

# Sixty patients with one to five images of one of three classes; some have two classes.
IMAGES = [
    (f"p{patient:02}", (patient + (number == 4)) % 3)
    for patient in range(60)
    for number in range(1 + patient % 5)
]
GROUPS, CLASSES = [group for group, _ in IMAGES], [label for _, label in IMAGES]


def sides(drawn: set[int]) -> tuple[set[str], set[str]]:
    held = {GROUPS[index] for index in drawn}
    return held, {group for index, group in enumerate(GROUPS) if index not in drawn}


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_are_held_out_whole_by_class(fraction: float, seed: int) -> None:
    drawn = draw_held_out_groups(GROUPS, CLASSES, seed, fraction)
    held, trained = sides(drawn)
    assert not held & trained
    assert held | trained == set(GROUPS)
    totals, counts = Counter(CLASSES), Counter(CLASSES[index] for index in drawn)
    for label, total in totals.items():
        assert 0 < counts[label] < total
        assert counts[label] / total == pytest.approx(fraction, abs=0.07)


def test_draw_depends_on_seed_and_names_alone() -> None:
    first = draw_held_out_groups(GROUPS, CLASSES, 0, 0.2)
    assert first != draw_held_out_groups(GROUPS, CLASSES, 1, 0.2)
    order = list(range(len(IMAGES)))[::-1]
    again = draw_held_out_groups(
        [GROUPS[index] for index in order], [CLASSES[index] for index in order], 0, 0.2
    )
    assert {order[index] for index in again} == first


@pytest.mark.parametrize(
    ("groups", "classes", "held"),
    [
        ("aabb", "xxxx", 1),
        ("aaaaab", "xxxxxx", 1),
        ("aaaa", "xxxx", 0),
        ("aabbc", "xxxxy", 1),
        ("abab", "xxyy", 1),
    ],
)
def test_few_groups_keep_classes_in_training(groups: str, classes: str, held: int) -> None:
    drawn = draw_held_out_groups(groups, classes, 0, 0.2)
    assert len({groups[index] for index in drawn}) == held
    assert {classes[index] for index in range(len(groups)) if index not in drawn} == set(classes)


def test_groups_are_found_in_paths() -> None:
    paths = ["cat/p01_1.png", "cat/p01_2.png", "dog/p2_1.png"]
    groups = groups_by(r"(p\d+)_", paths, "photos")
    assert list(groups.items()) == list(zip(paths, ("p01", "p01", "p2"), strict=True))
    assert groups_by(r"p\d+", paths, "photos")["dog/p2_1.png"] == "p2"
    with pytest.raises(DataError, match=r"no group in 2 images of photos; the paths are cat/p01_1"):
        groups_by(r"p\d_", paths, "photos")


def test_group_on_both_sides_is_refused() -> None:
    check_sides({"train": ["a", "b"], "val": ["c"], "test": ["d"]}, "photos")
    with pytest.raises(DataError, match=r"photos: 1 group is in both train and test: b"):
        check_sides({"train": ["a", "b"], "val": ["c"], "test": ["b", "d"]}, "photos")
