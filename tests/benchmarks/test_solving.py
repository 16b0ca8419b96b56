from benchmarks.sides.solving import fill, solve
from zoo.engine.features.store import Shelf


def test_what_was_filled_is_found_and_learned(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Shelf("made-up") as shelf:
        fill(shelf, 1_000)
    with Shelf("made-up") as shelf:
        assert len(shelf) == 1_000
        found = solve(shelf, 1_000)
    # Ten classes that overlap.
    assert 0.3 < found["accuracy"] < 0.99
    assert found["passes"] > 10
