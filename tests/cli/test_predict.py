"""Predict many images: folders, patterns and stdin; streamed, as text, JSON and tables."""

import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from types import SimpleNamespace

import numpy as np
import pytest

import zoo
from tests.networks import save_untrained
from tests.processes import started
from zoo.data.find import FoundImages, count_images, find_images
from zoo.data.images import Unreadable
from zoo.tasks.classification.data.sources import EMBEDDED

FLAGS = sorted((EMBEDDED / "val" / "flag").iterdir())[:6]
CLASSES = ["flag", "mammal", "zebra"]


@pytest.fixture
def model(tinynet, tmp_path):
    return save_untrained(tinynet, tmp_path / "model.safetensors", CLASSES)


@pytest.fixture
def photos(tmp_path):
    """Write a tree of six images, with files that are not among them."""
    root = tmp_path / "photos"
    names = ["b/2.jpg", "b/10.jpg", "a/deep/er/x.JPG", "a/y.jpg", "z.jpg", "b.jpg"]
    for name, source in zip(names, FLAGS, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / name)
    for name in (".hidden/h.jpg", "a/.h.jpg", "a/notes.txt", "__MACOSX/m.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "link").symlink_to(root / "b", target_is_directory=True)
    return root


IN_ORDER = ["a/deep/er/x.JPG", "a/link/10.jpg", "a/link/2.jpg", "a/y.jpg"]
IN_ORDER += ["b/10.jpg", "b/2.jpg", "b.jpg", "z.jpg"]


def test_folder_is_read_recursively_in_order(photos):
    assert list(find_images([str(photos)])) == [str(photos / name) for name in IN_ORDER]
    assert list(find_images([f"{photos}/b/"])) == [str(photos / name) for name in IN_ORDER[4:6]]


def test_images_are_counted_without_being_read(photos):
    found = FoundImages((str(photos / "b" / "*"), str(photos)))
    total = len(list(found))
    assert count_images(found, 100) == total == len(list(found))
    assert count_images(found, 3) == 3
    assert count_images([photos, photos / "z.jpg"], 100) == len(IN_ORDER) + 1
    assert count_images(np.zeros((4, 8, 8, 3), np.uint8), 100) == 4
    assert count_images(iter([str(photos)]), 100) is None


def test_quoted_patterns_match_as_in_a_shell(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert list(find_images(["b/*.jpg", "z*"])) == ["b/10.jpg", "b/2.jpg", "z.jpg"]
    everything = list(find_images(["**"]))
    assert everything == sorted(set(everything))
    assert set(everything) >= set(IN_ORDER)
    assert list(find_images(["*.gif"])) == [Unreadable("*.gif", "no file matches")]
    (photos / "[1].jpg").write_bytes(FLAGS[0].read_bytes())
    assert list(find_images(["[1].jpg"])) == ["[1].jpg"]  # exists


def test_image_named_as_table_is_unchanged(cli, photos):
    first = photos / IN_ORDER[0]
    before = first.read_bytes()
    code, _, err = cli("predict", "lite0", "--csv", first, photos)
    assert (code, first.read_bytes()) == (2, before)
    assert err == (
        f"zoo: error: --csv {first} is an image, and would be replaced; give predictions.csv\n"
    )


def test_predict_folder_as_text_json_lines_and_table(cli, model, photos):
    predict = ("predict", model, photos, "--device", "cpu", "--top", 2)
    code, out, err = cli(*predict, "--json", "--csv", "all.csv", "--batch-size", 3)
    answers = json.loads(out)
    assert (code, err) == (0, "")
    assert [answer["path"] for answer in answers] == [str(photos / name) for name in IN_ORDER]
    assert len(out.splitlines()) == len(answers) + 2
    _, lines, _ = cli(*predict, "--json-lines")
    assert [json.loads(line)["path"] for line in lines.splitlines()] == [a["path"] for a in answers]
    rows = list(csv.DictReader((photos.parent / "all.csv").open(newline="")))
    assert list(rows[0]) == ["path", "class", "probability", "error"]
    assert [(r["path"], r["class"], float(r["probability"])) for r in rows] == [
        (answer["path"], each["class"], each["probability"])
        for answer in answers
        for each in answer["predictions"]
    ]
    _, text, _ = cli(*predict)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [
        answer["path"] for answer in answers
    ]
    assert cli(*predict, "--csv", "all.csv")[1] == "8 images: all.csv\n"
    code, _, err = cli(*predict, "--json", "--json-lines")
    assert (code, "exclude each other" in err) == (2, True)


def test_unreadable_images_are_named_and_others_predicted(cli, model, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (photos / "b" / "1.jpg").write_text("words")
    given = (photos / "b" / "1.jpg", "gone.jpg", "*.tif", "empty", photos / "b")
    code, out, err = cli("predict", model, *given, "--json-lines", "--csv", "all.csv")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer.get("error", "").rpartition(": ")[2] for answer in answers] == [
        "not an image that zoo reads",
        "it does not exist",
        "no file matches",
        "it is a folder without images",
        "not an image that zoo reads",
        "",
        "",
    ]
    assert code == 3
    assert "5 of 7 images cannot be read" in err
    rows = list(csv.DictReader((tmp_path / "all.csv").open(newline="")))
    assert len(rows) == 5 + 2 * 3
    assert [row["path"] for row in rows[:4]] == [answer["path"] for answer in answers[:4]]
    assert all(bool(row["error"]) is not bool(row["class"]) for row in rows)
    code, out, _ = cli("predict", model, "gone.jpg", "--csv", "none.csv")
    assert (code, (tmp_path / "none.csv").read_text().count("\n")) == (3, 2)
    code, _, err = cli("predict", model, photos, "--csv", "empty/../all.csv/x.csv")
    assert (code, "all.csv" in err) == (6, True)


def test_predict_reads_paths_from_stdin(cli, model, photos, monkeypatch):
    odd = photos / os.fsdecode(b"\xff.jpg")
    odd.write_bytes(FLAGS[0].read_bytes())
    text = b"\n".join([os.fsencode(odd), b"", os.fsencode(photos / "b"), b"*.jpg"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    code, out, _ = cli("predict", model, "-", "--json-lines")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers[:3]] == [
        str(odd),
        str(photos / "b/10.jpg"),
        str(photos / "b/2.jpg"),
    ]
    assert (code, answers[3]["path"]) == (3, "*.jpg")  # a file of that name
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    code, out, err = cli("predict", model, "-", "--json")
    assert (code, json.loads(out)) == (3, [])
    assert "stdin names no image" in err


def test_predictions_are_streamed_and_progress_is_shown(model):
    options = ["--json-lines", "--batch-size", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "zoo", "predict", str(model), "-", *options]
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    os.set_blocking(terminal, False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": end}
    with started(command, **pipes) as process:
        for path in FLAGS[:3]:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == str(path)
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(60) == 0
    shown = os.read(terminal, 1 << 16)  # before its other end is closed, and what it has is lost
    os.close(end)
    os.close(terminal)
    assert b"images: " in shown


def test_stream_takes_images_as_needed(model):
    taken = []

    def paths():
        for _ in range(100):
            taken.append(1)
            yield FLAGS[0]

    answers = zoo.load(model, device="cpu").stream(paths(), top=1, batch_size=4)
    assert next(answers)["path"] == str(FLAGS[0])
    assert len(taken) == 4
    assert len(list(answers)) == 99
