"""The segmentation schema: palette, JSON, validation."""

import json

import pytest

from zoo.tasks.segmentation.schema import SegmentationSchema, voc_color


def test_default_palette_is_pascal_voc():
    # From the development kit: background, aeroplane, bicycle, bird, boat, person, monitor.
    expected = {0: "#000000", 1: "#800000", 2: "#008000", 3: "#808000", 4: "#000080"}
    expected |= {15: "#c08080", 20: "#004080", 255: "#e0e0c0"}
    assert {index: voc_color(index) for index in expected} == expected
    assert SegmentationSchema(("sky", "road")).palette == ("#000000", "#800000")


def test_schema_round_trips_through_json():
    schema = SegmentationSchema(("sky", "road"), ("#0000ff", "#777777"))
    again = SegmentationSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.colors == [(0, 0, 255), (119, 119, 119)]
    assert SegmentationSchema.from_dict({"classes": ["a", "b"]}).palette[1] == "#800000"


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ["a", "b"], "palette": ["#000000"]},
        {"classes": ["a"], "palette": ["red"]},
        {"classes": ["a"], "ignore_index": 0},
        {"classes": [str(n) for n in range(256)]},
    ],
)
def test_from_dict_rejects_invalid_schema(values):
    with pytest.raises(ValueError, match=r"colour|ignore_index|maximum"):
        SegmentationSchema.from_dict(values)
