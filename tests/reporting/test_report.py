"""The report of a training: its numbers, its HTML, and runs without stored results."""

import itertools
import json
import re
import shutil
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from statistics import NormalDist

import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

import zoo
from zoo.reporting.load import read_run
from zoo.reporting.write import write_report
from zoo.sections import DataTable, LineChart, Numbers, Section, Series, SmallImage, Text
from zoo.tasks.classification.statistics import (
    class_scores,
    expected_calibration_error,
    reliability_bins,
    wilson_interval,
)

QUICK = {"weights": "none", "device": "cpu", "batch_size": 8}
EVIL = "<script>alert(1)</script> \"'&"
MOST_BYTES = 3 << 20
VOID = {"meta", "img", "link", "br", "hr", "input"}
# Elements of SVG that are written without an end tag.
CLOSED = {"line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """What a page contains; raises where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids, self.links, self.images, self.tags, self.open = [], [], [], [], []
        self.references, self.text = [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "src") if key in values]
        for name in ("aria-labelledby", "for", "data-matrix"):
            self.references += (values.get(name) or "").split()
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in CLOSED | VOID
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def check_page(path: Path) -> Page:
    data = path.read_bytes()
    assert len(data) < MOST_BYTES
    page = Page(data.decode())
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.references) <= set(page.ids)
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(image["alt"] for image in page.images)
    assert not re.search(r"https?://", data.decode())
    return page


@pytest.fixture
def reporting(monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")


FLAT = """
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=32, resize=36)
        yield zoo.Backbone("flat", "plugin_flat:build", (zoo.Head("3"),), small)

    def build(weights=None):
        from torch import nn

        body = nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU()
        return nn.Sequential(*body, nn.Linear(8, 7))
"""


def test_network_without_map_is_reported_as_such(reporting, install, image_folder, tmp_path):
    install("flat", FLAT)
    run = zoo.finetune("flat", data=image_folder, out=tmp_path / "run", **QUICK)
    text = check_page(run.path / "report.html").text
    assert "No activation maps: the network has no spatial map before its head." in text


@pytest.fixture
def finished(reporting, tinynet, image_folder, tmp_path):
    """A finished training of two phases by epochs, with its report."""
    options = {"recipe": "head-then-all", "epochs": (2, 2), "lr": 0.01, "out": tmp_path / "run"}
    return zoo.finetune(tinynet, data=image_folder, **options, **QUICK)


def test_report_is_written_and_rebuilt_without_data(finished, monkeypatch, tmp_path):
    path = finished.path / "report.html"
    page = check_page(path)
    for title in ("Results", "Learning curves", "Worst mistakes", "Class balance", "Plan"):
        assert title in page.text
    assert "First training batch" in page.text
    assert "Where the network looks" in page.text
    assert "Top-5" not in page.text  # of three classes
    assert finished.record["command"] is None or "zoo finetune" in page.text
    assert finished.record["stages"].keys() == {"prepare", "train", "report"}
    before = path.read_bytes()
    path.unlink()
    monkeypatch.chdir(tmp_path)
    assert zoo.report(finished) == path.absolute()
    assert path.read_bytes() == before
    other = zoo.report(finished.path, out="other.html")
    assert other.read_bytes() == before


def test_report_has_recorded_samples(finished, image_folder):
    run, _ = read_run(finished.path)
    classes = finished.record["plan"]["classes"]
    model = finished.model(device="cpu")
    for split, samples in run.results["samples"].items():
        paths = [image_folder / name for name in samples["name"]]
        assert len(paths) == samples["images"] == 12
        assert [classes[true] for true in samples["true"]] == [path.parent.name for path in paths]
        answers = model.predict(paths, top=3, batch_size=8)
        for row, answer in enumerate(answers):
            expected = {each["class"]: each["probability"] for each in answer["predictions"]}
            best = [classes[index] for index in samples["classes"][row]]
            assert samples["probabilities"][row] == pytest.approx(
                [expected[n] for n in best], abs=1e-4
            )
            assert samples["probability"][row] == pytest.approx(
                expected[paths[row].parent.name], abs=1e-4
            )
        predicted = [best[0] for best in samples["classes"]]
        metrics = finished.record["metrics"][split]
        table = confusion_matrix(samples["true"], predicted, labels=range(3))
        assert table.tolist() == metrics["confusion"]
        balanced = balanced_accuracy_score(samples["true"], predicted)
        assert metrics["balanced_accuracy"] == pytest.approx(balanced)
        scores = class_scores(metrics["confusion"])
        *expected, support = precision_recall_fscore_support(
            samples["true"], predicted, labels=range(3), zero_division=0
        )
        own = [[getattr(s, n) or 0 for s in scores] for n in ("precision", "recall", "f1")]
        assert own == [pytest.approx(each) for each in expected]
        assert [each.images for each in scores] == support.tolist()


def test_wilson_interval_solves_its_equation():
    # The bounds are the roots of (p - share)^2 = z^2 p (1 - p) / n.
    z = NormalDist().inv_cdf(0.975)
    for correct, images in ((0, 10), (10, 10), (83, 96), (1, 3)):
        low, high = wilson_interval(correct, images)
        for bound in (low, high):
            distance = (bound - correct / images) ** 2
            assert distance == pytest.approx(z**2 * bound * (1 - bound) / images, abs=1e-9)
        assert 0 <= low <= correct / images <= high <= 1
    assert wilson_interval(0, 0) == (0, 1)


def test_calibration_error_equals_plain_loop():
    confidences = [0.05, 0.1, 0.1000001, 0.5, 0.55, 0.93, 0.97, 1.0, 1.0]
    correct = [False, False, True, True, False, True, True, True, False]
    total = 0.0
    for number in range(10):
        members = [
            i for i, c in enumerate(confidences) if number / 10 < c <= (number + 1) / 10 + 1e-12
        ]
        if members:
            mean = sum(confidences[i] for i in members) / len(members)
            share = sum(correct[i] for i in members) / len(members)
            total += len(members) / len(confidences) * abs(mean - share)
    bins = reliability_bins(confidences, correct)
    assert expected_calibration_error(bins) == pytest.approx(total)
    assert sum(size for *_, size in bins) == len(confidences)


def test_names_are_escaped(finished, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(finished.path, folder)
    for name in ("run.json", "results.json"):
        path = folder / name
        text = path.read_text().replace("playing_card", json.dumps(EVIL)[1:-1])
        path.write_text(text)
    results = json.loads((folder / "results.json").read_text())
    image = next(iter(results["task"]["mistakes"].values()))[0]["image"]
    gallery = {"kind": "Gallery", "images": [], "caption": EVIL}
    gallery["images"] = [{"kind": "SmallImage", "data": image, "alt": EVIL, "lines": [EVIL]}]
    chart = {
        "kind": "BarChart",
        "title": EVIL,
        "bars": [[EVIL, [1.0]]],
        "groups": [EVIL],
        "percent": False,
    }
    added = {"title": EVIL, "place": 1, "anchor": EVIL, "parts": [gallery, chart]}
    results["sections"] = [added, added]
    (folder / "results.json").write_text(json.dumps(results))
    page = check_page(write_report(folder))
    assert page.tags.count("script") == 1
    assert page.text.count("<script>alert(1)</script>") > 5
    assert EVIL in {image["alt"] for image in page.images}


def test_old_run_is_reported_with_what_it_has(finished):
    for name in ("results.json", "history.csv"):
        (finished.path / name).unlink()
    record = json.loads((finished.path / "run.json").read_text())
    for name in ("stages", "command"):
        del record[name]
    (finished.path / "run.json").write_text(json.dumps(record))
    page = check_page(write_report(finished.path))
    assert "were not stored" in page.text
    assert "Confusion matrix, val" in page.text
    assert "Worst mistakes" not in page.text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a run folder"), ("{", "damaged"), ('{"task": "a"}', "has no backbone")],
)
def test_folder_without_training_is_refused(cli, tmp_path, content, message):
    folder = tmp_path / "other"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_text(content)
    code, _, err = cli("report", folder)
    assert code == (2 if content is None else 4)
    assert message in err


def test_damaged_results_are_refused_in_one_line(cli, finished, tmp_path):
    """Each value that a run stores is removed, or replaced by a text."""
    whole = shutil.copytree(finished.path, tmp_path / "whole")
    codes = []
    for name, keys in (("run.json", ()), ("results.json", ()), ("results.json", ("task",))):
        stored = json.loads((whole / name).read_text())
        values = stored[keys[0]] if keys else stored
        for key, damage in itertools.product([*values], (values.pop, partial(set_text, values))):
            before = values[key]
            damage(key)
            folder = shutil.copytree(whole, tmp_path / f"run{len(codes)}")
            (folder / name).write_text(json.dumps(stored))
            values[key] = before
            code, _, err = cli("report", folder)
            codes.append(code)
            assert code == 0 or (code == 4 and len(err.splitlines()) == 1), err
            assert code == 0 or str(folder) in err
    assert {*codes} == {0, 4}
    assert codes.count(4) > 10


def test_report_replaces_no_model(cli, finished):
    model = finished.path / "model.safetensors"
    before = model.read_bytes()
    code, _, err = cli("report", finished.path, "--out", model)
    assert (code, model.read_bytes()) == (2, before)
    assert f"--out {model} is a file of weights, and would be replaced" in err


def set_text(values, key):
    values[key] = "text"


def test_report_command_prints_path(cli, finished, tmp_path):
    code, out, _ = cli("report", finished.path, "--out", "mine.html", "--json")
    assert code == 0
    answer = json.loads(out)
    assert Path(answer["path"]) == tmp_path / "mine.html"
    assert answer["bytes"] == (tmp_path / "mine.html").stat().st_size
    code, out, _ = cli("report", finished.path)
    assert (code, out) == (0, f"report {finished.path.absolute() / 'report.html'}\n")


def test_report_is_off_without_its_plugin(tinynet, image_folder, tmp_path):
    run = zoo.finetune(tinynet, data=image_folder, out=tmp_path / "off", **QUICK)
    assert not {"report.html", "results.json"} & {path.name for path in run.path.iterdir()}


def test_failed_report_is_one_notice(
    reporting, tinynet, image_folder, tmp_path, monkeypatch, capsys
):
    def fail(self, evidence):
        raise ValueError("no results")

    monkeypatch.setattr("zoo.tasks.classification.task.ImageClassification.report_data", fail)
    run = zoo.finetune(tinynet, data=image_folder, out=tmp_path / "run", quiet=False, **QUICK)
    notices = [line for line in capsys.readouterr().err.splitlines() if "no results" in line]
    assert len(notices) == 1
    assert "were not stored" in check_page(run.path / "report.html").text


def test_report_equals_model_without_it(reporting, tinynet, image_folder, tmp_path, monkeypatch):
    options = {"recipe": "all", "epochs": 1, "lr": 0.01, **QUICK}
    zoo.finetune(tinynet, data=image_folder, out=tmp_path / "with", **options)
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm,-report")
    zoo.finetune(tinynet, data=image_folder, out=tmp_path / "without", **options)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert models[0] == models[1]


def test_section_round_trips_through_json():
    parts = (
        Text("`a` and b", note=True),
        DataTable(("a", "b"), (("x", "1"),), ("b",)),
        LineChart("t", "x", "y", (Series("s", ((1.0, 2.0), (2.0, 3.0))),)),
        Numbers(()),
    )
    section = Section("A title: ä", parts, 3.5)
    assert section.anchor == "a-title"
    assert Section.from_dict(json.loads(json.dumps(section.to_dict()))) == section
    with pytest.raises(zoo.UsageError, match="no JPEG"):
        SmallImage(b"<svg>", "an image")
    with pytest.raises(zoo.UsageError, match="has a str"):
        Section("a", ("text",))


def test_solved_head_reports_its_data(reporting, plainnet, image_folder, tmp_path):
    options = {"recipe": "probe", "weights": "none", "device": "cpu"}
    run = zoo.finetune(plainnet, data=image_folder, out=tmp_path / "run", **options)
    stored, _ = read_run(run.path)
    found = stored.results["label_errors"]
    assert found["images"] == 24
    assert found["found"] >= len(found["shown"])
    assert stored.results["held_out"]["1"]["nll"] > 0
    samples, shown = stored.results["samples"]["val"], stored.results["activation"]["shown"]
    right = [samples["classes"][e["row"]][0] == samples["true"][e["row"]] for e in shown]
    assert right == sorted(right)  # wrong ones first
    correct = stored.record["metrics"]["val"]["top1"] * 12
    assert (len(right) - sum(right), sum(right)) == (min(12 - correct, 6), min(correct, 6))
    assert len({each["image"] for each in shown}) == len(shown)
    page = check_page(run.path / "report.html")
    assert "Probable label errors" in page.text
    answered = stored.results["answered"]
    assert answered[0][:2] == [0, 24]
    assert [row[1] for row in answered] == sorted((row[1] for row in answered), reverse=True)
    assert "What that costs, by held-out predictions of the training images" in page.text
    assert "What to try next" in page.text
