"""When a checkpoint is due, and which of a folder is the newest whole one."""

import pytest

from zoo.engine.training.checkpoints import Cadence, list_checkpoints, move_aside

# Seconds since the last one, seconds that it took, whether an epoch has ended, whether one is due.
AUTOMATIC = [
    (0.5, 0.0, True, False),  # epochs shorter than a second share one
    (1.0, 0.0, True, True),
    (59.0, 0.0, False, False),
    (60.0, 0.0, False, True),
    (49.0, 1.0, True, False),  # 2 % of the time
    (50.0, 1.0, True, True),
    (60.0, 2.0, False, False),
    (100.0, 2.0, False, True),
]


@pytest.mark.parametrize(("waited", "cost", "epoch_ended", "due"), AUTOMATIC)
def test_automatic_cadence_spends_two_percent_of_the_time(waited, cost, epoch_ended, due):
    assert Cadence().due(waited, cost, epoch_ended) is due


@pytest.mark.parametrize(
    ("every", "waited", "epoch_ended", "due"),
    [
        (0.0, 0.0, False, True),
        (5.0, 4.9, False, False),
        (5.0, 5.0, False, True),
        (5.0, 0.1, True, True),
    ],
)
def test_given_seconds_hold_within_an_epoch_whatever_one_costs(every, waited, epoch_ended, due):
    assert Cadence(every).due(waited, 100.0, epoch_ended) is due


def test_checkpoints_are_listed_by_number_and_nothing_else_is(tmp_path):
    names = ["checkpoint-1000000", "checkpoint-000002", "checkpoint-x", "damaged-000003"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-000004").write_text("a file")
    assert list_checkpoints(tmp_path) == [
        (2, tmp_path / "checkpoint-000002"),
        (1000000, tmp_path / "checkpoint-1000000"),
    ]


def test_folder_moved_aside_overwrites_no_other(tmp_path):
    paths = []
    for text in ("first", "second", "third"):
        source = tmp_path / "source"
        source.mkdir()
        (source / "text").write_text(text)
        paths.append(move_aside(source, tmp_path / "damaged-1"))
    assert [path.name for path in paths] == ["damaged-1", "damaged-1-2", "damaged-1-3"]
    assert [(path / "text").read_text() for path in paths] == ["first", "second", "third"]
