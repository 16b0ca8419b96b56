import pytest

from benchmarks.sides.bench import keep, start
from benchmarks.sides.report import bars, rows, summary, table

IMAGES = 100


def training(seconds, startup, epochs, **further):
    return {"seconds": seconds, "startup": startup, "epochs": epochs, **further}


SIDES = {
    "decode": [{"seconds": 4.0}],
    "forward": [{"seconds": 4.0}],
    "zoo": [training(20.0, 10.0, [9.5], backbone_forwards=IMAGES, memory_mb=700, top1=0.5)],
    "zoo again": [training(11.0, 10.0, [0.5], backbone_forwards=0)],
    "zoo 20 epochs": [
        training(22.0, 10.0, [9.5] + [0.1] * 19, backbone_forwards=IMAGES),
        training(26.0, 12.0, [9.5] + [0.1] * 19, backbone_forwards=IMAGES),
        training(90.0, 50.0, [9.5] + [0.1] * 19, backbone_forwards=IMAGES),
    ],
    "textbook": [training(28.0, 12.0, [15.0], memory_mb=800, top1=0.4)],
}


def lines():
    results = {"machine": "2 cores", "pictures": {"images": IMAGES}, "networks": {"n": SIDES}}
    return list(table(results))


def row(name):
    [line] = [line for line in lines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_side_is_the_median_of_its_runs():
    said = summary(SIDES["zoo 20 epochs"], IMAGES)
    assert (said["seconds"], said["startup"], said["after"]) == (26.0, 12.0, 14.0)


def test_images_are_those_that_went_through_the_backbone():
    assert summary(SIDES["zoo"], IMAGES)["images_per_second"] == 10
    assert summary(SIDES["textbook"], IMAGES)["images_per_second"] == IMAGES / 16
    again = summary(SIDES["zoo again"], IMAGES)
    assert (again["forwards"], again["images_per_second"]) == (0, None)


def test_what_was_not_run_is_reckoned_and_says_so():
    found = rows(SIDES, IMAGES)
    reckoned = found["textbook 20 epochs, reckoned"]
    assert reckoned["seconds"] == 28 + 19 * 15
    assert reckoned["after"] == 16 + 19 * 15
    assert reckoned["forwards"] == 20 * IMAGES
    assert reckoned["top1"] is None
    assert reckoned["memory_mb"] is None


def test_what_was_run_is_not_reckoned():
    ran = {**SIDES, "textbook 20 epochs": [training(300.0, 10.0, [14.0] * 20)]}
    found = rows(ran, IMAGES)
    assert "textbook 20 epochs, reckoned" not in found
    assert any("20.7x start-up apart" in line for line in bars(found))


def test_the_table_has_a_cell_for_each_heading():
    widths = {line.count("|") for line in lines() if line.startswith("|")}
    assert len(widths) == 1
    assert row("zoo") == ["zoo", "20.0", "10.0", "10.0", "10", "700", "0.500", "100"]
    assert row("decode") == ["decode", "4.0", "", "4.0", "25", "", "", "100"]


def test_zoo_is_held_against_the_floors_and_the_textbook():
    said = "\n".join(lines())
    assert "to decode + forward (bar 1.25): zoo 1.25, zoo 20 epochs 1.75" in said
    assert "in one pass" not in said
    assert f"{301 / 14:.1f}x start-up apart, {313 / 26:.1f}x with it" in said
    assert "images through the backbone in a second run: 0" in said


def test_a_network_with_one_side_has_a_table_too():
    found = rows({"decode": [{"seconds": 4.0}], "zoo": []}, IMAGES)
    assert list(found) == ["decode"]
    assert list(bars(found)) == []


def test_a_stopped_run_goes_on_and_another_is_not_mixed_in(tmp_path):
    out = tmp_path / "results.json"
    begun = start(out, False, {"networks": {}}, pictures={"images": 5})
    begun["networks"]["n"] = {"decode": [{"seconds": 1.0}]}
    keep(begun, out)
    assert start(out, False, {"networks": {}}, pictures={"images": 5}) == begun
    with pytest.raises(SystemExit, match=r"results of other pictures.*--fresh"):
        start(out, False, {"networks": {}}, pictures={"images": 6})
    assert start(out, True, {"networks": {}}, pictures={"images": 6})["networks"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
