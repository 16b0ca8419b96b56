"""Images of batches and of confusion matrices, as they are drawn."""

import numpy as np
import pytest
from zoo_tensorboard.images import (
    CAPTION,
    GAP,
    MAX_IMAGES,
    Layout,
    draw_batch,
    draw_confusion,
    shade,
)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_draw_batch_of_any_channels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, channels), dtype=np.uint8)
    shown = np.asarray(draw_batch(pixels, ["a", "b", "c", "d"]))
    assert shown.shape == (2 * (96 + CAPTION + GAP) + GAP, 2 * (96 + GAP) + GAP, 3)
    expected = pixels[0, :, :, :3] if channels >= 3 else pixels[0, :, :, :1].repeat(3, axis=2)
    assert np.array_equal(shown[GAP : GAP + 96, GAP : GAP + 96], expected)


def test_draw_batch_reduces_large_and_limits_count() -> None:
    pixels = np.full((50, 600, 600, 3), 7, dtype=np.uint8)
    shown = draw_batch(pixels, ["a name that is far too long for the caption of an image"] * 50)
    assert shown.size == (6 * (200 + GAP) + GAP, 6 * (200 + CAPTION + GAP) + GAP)
    last = np.asarray(shown)[-200 - CAPTION - GAP :]
    edges = [GAP + column * (200 + GAP) for column in range(6)]
    assert [bool((last[:200, edge : edge + 200] == 7).all()) for edge in edges] == [
        index < MAX_IMAGES for index in range(30, 36)
    ]


def test_draw_confusion_many_classes_without_text() -> None:
    table = np.eye(100, dtype=int) * 3
    table[0, 1] = 1
    shown = np.asarray(draw_confusion(table.tolist(), list(map(str, range(100)))))
    assert shown.shape == (800, 800, 3)
    assert tuple(shown[0, 0]) == shade(0.75)
    assert tuple(shown[4, 12]) == shade(0.25)
    assert tuple(shown[799, 799]) == shade(1.0)
    assert tuple(shown[799, 0]) == shade(0.0)


def test_draw_confusion_unusual_names_and_empty_rows() -> None:
    names = ["one\nline", "x" * 500, "Ünïcode 猫", ""]
    table = [[0] * 4, [1, 0, 0, 123456], [0] * 4, [0] * 4]
    layout = Layout(table, names)
    shown = np.asarray(draw_confusion(table, names))
    assert shown.shape == (*layout.size[::-1], 3)
    assert layout.size[0] < 800
    left, top, _, _ = layout.box(0, 0)
    assert tuple(shown[top, left]) == (255, 255, 255)
