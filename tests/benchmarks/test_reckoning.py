import pytest

from benchmarks.sides.reckoning import costs, growth, size_in_words, table_of_costs, time_in_words

ROWS = {
    "plan folder 1,000": {"images": 1_000, "memory_mb": 500, "seconds": 10.0},
    "plan folder 1,001,000": {"images": 1_001_000, "memory_mb": 700, "seconds": 70.0},
    "solve 300,000": {"images": 300_000, "memory_mb": 900, "seconds": 80.0, "row_bytes": 1056},
    "solve 1,300,000": {"images": 1_300_000, "memory_mb": 950, "seconds": 390.0, "row_bytes": 1056},
}
RECORD = {"seconds": 100.0, "startup": 10.0, "epochs": [90.0], "backbone_forwards": 2_500}
HEADS = {"networks": {"resnet18": {"zoo": [RECORD]}}, "pictures": {"images": 2_500}}


def test_growth_is_between_the_fewest_and_the_most():
    assert growth(ROWS, "plan folder") == pytest.approx(200 * 2**20 / 1e6)
    assert growth(ROWS, "plan folder", "seconds", 1) == pytest.approx(60e-6)
    assert growth(ROWS, "train") is None


def test_each_part_is_multiplied():
    found = costs(ROWS, HEADS)
    assert found["finding and planning"] == ("60 seconds", "100 minutes")
    assert found["images through the backbone"] == ("10 hours", "42 days")
    assert found["solving for the head"] == ("5 minutes", "8.3 hours")
    assert found["memory for the index"] == ("250 MiB", "24 GiB")
    assert found["disk for kept features"] == ("1,000 MiB", "98 GiB")
    assert found["disk for `--cache-images`"] == ("140 GiB", "14 TiB")


def test_nothing_is_reckoned_from_parts_that_are_missing():
    assert list(table_of_costs({}, HEADS)) == []
    assert list(table_of_costs(ROWS, {"networks": {}, "pictures": {"images": 1}})) == []


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 seconds"), (119, "120 seconds"), (7_300, "2 hours")]
)
def test_times_are_in_the_largest_unit_of_which_there_are_two(seconds, words):
    assert time_in_words(seconds) == words


def test_sizes_are_in_words():
    assert [size_in_words(1 << power) for power in (20, 30, 41)] == ["1 MiB", "1 GiB", "2 TiB"]
