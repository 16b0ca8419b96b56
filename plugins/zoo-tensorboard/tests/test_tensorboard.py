"""Logs of real trainings with the installed plugin, read by TensorBoard."""

import csv
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn.functional import cross_entropy
from zoo_tensorboard import plugin
from zoo_tensorboard.images import (
    CAPTION,
    GAP,
    MIN_WIDTH,
    Layout,
    draw_batch,
    shade,
)
from zoo_tensorboard.writer import plan_table

import zoo
from zoo.data.decode import decode
from zoo.data.transforms import prepare
from zoo.engine.plan.options import Options
from zoo.engine.run.finetune import fit
from zoo.engine.run.prepare import prepare as prepare_training
from zoo.modelfile import MODEL
from zoo.registry.registry import load_registry
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.terminal import Progress

SMALL = {"weights": "none", "device": "cpu", "batch_size": 8, "input_size": 32, "workers": 0}
NAME = "timm/test_resnet"  # half a million parameters
CLASSES = ("flag", "mammal", "playing_card")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for name in CLASSES:
        paths = sorted((EMBEDDED / "train" / name).iterdir())
        for split, chosen in (("train", paths[:6]), ("val", paths[6:9]), ("test", paths[9:11])):
            (root / split / name).mkdir(parents=True)
            for path in chosen:
                shutil.copyfile(path, root / split / name / path.name)
    return root


@pytest.fixture(autouse=True)
def surroundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.delenv("ZOO_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)


def read(run: Path) -> EventAccumulator:
    (file,) = (run / "tensorboard").iterdir()
    log = EventAccumulator(str(file))
    log.Reload()
    return log


def image(log: EventAccumulator, tag: str) -> tuple[int, np.ndarray]:
    (event,) = log.Images(tag)
    shown = Image.open(io.BytesIO(event.encoded_image_string))
    assert (shown.mode, shown.width, shown.height) == ("RGB", event.width, event.height)
    return event.step, np.asarray(shown)


def test_entry_point_loads_plugin() -> None:
    [point] = entry_points(group="zoo", name="tensorboard")
    assert point.load() is plugin


def test_plugin_import_is_light() -> None:
    code = (
        "import sys, zoo_tensorboard.plugin; "
        "print({'torch', 'numpy', 'PIL', 'tensorboard', 'google'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def two_phases(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A training in two phases with a user metric."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZOO_PLUGINS", raising=False)
        return zoo.finetune(
            NAME,
            data=photos,
            recipe="head-then-all",
            epochs=(3, 2),
            metrics={"missed": lambda logits, labels: (logits.argmax(1) != labels).sum()},
            out=tmp_path_factory.mktemp("runs") / "run",
            **SMALL,
        )


def test_scalars_equal_history_over_phases(two_phases: zoo.Run) -> None:
    log = read(two_phases.path)
    rows = list(csv.DictReader((two_phases.path / "history.csv").open()))
    assert [row["phase"] for row in rows] == ["head"] * 3 + ["all"] * 2
    columns = {"train/loss": "train_loss", "train/lr": "lr"}
    names = ("loss", "top1", "top5", "balanced_accuracy", "missed")
    columns |= {f"val/{name}": f"val_{name}" for name in names}
    final = {
        f"final_{split}/{name}": two_phases.metrics[split][name]
        for split in ("val", "test")
        for name in (*names, "chance")
    }
    assert set(log.Tags()["scalars"]) == {*columns, *final}
    for tag, column in columns.items():
        written = log.Scalars(tag)
        assert [event.step for event in written] == [1, 2, 3, 4, 5]
        # Event files store scalars as float32.
        assert [event.value for event in written] == [
            float(np.float32(row[column])) for row in rows
        ]
    for tag, value in final.items():
        (event,) = log.Scalars(tag)
        assert (event.step, event.value) == (5, float(np.float32(value)))


def test_confusion_images_show_run_counts(two_phases: zoo.Run) -> None:
    log = read(two_phases.path)
    for split in ("val", "test"):
        table = two_phases.metrics[split]["confusion"]
        step, shown = image(log, f"confusion/{split}")
        layout = Layout(table, CLASSES)
        assert step == 5
        assert shown.shape == (*layout.size[::-1], 3)
        for row, counts in enumerate(table):
            for column, count in enumerate(counts):
                left, top, right, bottom = layout.box(row, column)
                cell = shown[top : bottom + 1, left : right + 1]
                share = count / sum(counts)
                assert tuple(cell[0, 0]) == shade(share)
                # The expected cell, drawn separately.
                alone = Image.new("RGB", (layout.cell, layout.cell), shade(share))
                ImageDraw.Draw(alone).text(
                    ((layout.cell - 1) / 2, (layout.cell - 1) / 2),
                    str(count),
                    "white" if share > 0.5 else "black",
                    layout.font,
                    anchor="mm",
                )
                assert np.array_equal(cell, np.asarray(alone))


def grid_images(shown: np.ndarray, count: int) -> list[bytes]:
    """Return the tiles of a grid, reduced to the input size of the network."""
    columns = int(np.ceil(np.sqrt(count)))
    tiles = []
    for index in range(count):
        left = GAP + index % columns * (MIN_WIDTH + GAP)
        top = GAP + index // columns * (MIN_WIDTH + CAPTION + GAP)
        tile = shown[top : top + MIN_WIDTH, left : left + MIN_WIDTH]
        tiles.append(tile[::3, ::3].tobytes())
        assert np.array_equal(tile, tile[::3, ::3].repeat(3, 0).repeat(3, 1))
    return tiles


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_first_batch_image_shows_training_images(photos: Path, recipe: str) -> None:
    run = zoo.finetune(NAME, data=photos, recipe=recipe, epochs=1, **SMALL)
    step, shown = image(read(run.path), "train/first_batch")
    assert step == 0
    plan = run.record["plan"]["preprocess"]
    preprocess = zoo.Preprocess(**{**plan, "size": tuple(plan["size"])})
    known = {
        prepare(decode(path), preprocess).permute(1, 2, 0).numpy().tobytes(): path
        for path in (photos / "train").rglob("*.jpg")
    }
    paths = [known[data] for data in grid_images(shown, 8)]
    assert len(set(paths)) == 8
    # The captions are the class names.
    again = draw_batch(
        np.stack([prepare(decode(p), preprocess).permute(1, 2, 0).numpy() for p in paths]),
        [path.parent.name for path in paths],
    )
    assert np.array_equal(np.asarray(again), shown)


def test_plan_is_logged_as_table(two_phases: zoo.Run) -> None:
    (event,) = read(two_phases.path).Tensors("plan")
    table = event.tensor_proto.string_val[0].decode()
    assert event.step == 0
    assert "| backbone | timm/test\\_resnet |" in table
    assert "| phases.1.epochs | 2 | as given |" in table
    assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_plan_table_escapes_markdown() -> None:
    plan = {"classes": ("a|b", "<b>", "*c*\n"), "phases": (), "reasons": {"classes": "x | y"}}
    last = plan_table(plan).splitlines()[-1]
    assert last == r'| classes | \["a\|b", "&lt;b&gt;", "\*c\*\\n"\] | x \| y |'


def test_two_trainings_two_logs_unchanged_models(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        zoo.finetune(NAME, data=photos, epochs=epochs, augment="crop,flip", **SMALL)
        for epochs in (1, 2)
    ]
    for run, epochs in zip(runs, (1, 2), strict=True):
        assert [event.step for event in read(run.path).Scalars("train/loss")] == [1, 2][:epochs]
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard")
    alone = zoo.finetune(NAME, data=photos, epochs=2, augment="crop,flip", **SMALL)
    assert not (alone.path / "tensorboard").exists()
    models = [(run.path / "model.safetensors").read_bytes() for run in (runs[1], alone)]
    assert models[0] == models[1]


def test_concurrent_threads_have_separate_logs(tmp_path: Path) -> None:
    turn = threading.Barrier(2, timeout=60)

    def train(name: str, loss: float) -> None:
        (tmp_path / name).mkdir()
        plugin.zoo_before_fit(zoo.FitStarted("a/b", {"classes": ["x", "y"]}, str(tmp_path / name)))
        turn.wait()
        plugin.zoo_after_epoch(zoo.EpochEnded("all", 1, 1, 0.1, loss, {"loss": loss}, True, 1.0))
        turn.wait()
        plugin.zoo_after_fit(zoo.FitEnded("a/b", {}, 1.0, str(tmp_path / name)))

    threads = [threading.Thread(target=train, args=it) for it in (("one", 1.0), ("two", 2.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, loss in (("one", 1.0), ("two", 2.0)):
        assert [event.value for event in read(tmp_path / name).Scalars("train/loss")] == [loss]


def test_resumed_training_goes_on_with_its_steps(tmp_path: Path) -> None:
    def train(earlier: int, losses: list[float]) -> None:
        plugin.zoo_before_fit(zoo.FitStarted("a/b", {"classes": ["x"]}, str(tmp_path), earlier))
        for loss in losses:
            event = zoo.EpochEnded("all", 1, 5, 0.1, loss, {"loss": loss}, True, 1.0)
            plugin.zoo_after_epoch(event)
        plugin.zoo_on_error(zoo.FitFailed("a/b", "KeyboardInterrupt", "", str(tmp_path)))

    train(0, [1.0, 2.0, 3.0])
    train(2, [4.0, 5.0])  # from a checkpoint of the second epoch
    train(4, [])
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    events = log.Scalars("train/loss")
    assert [(event.step, event.value) for event in events] == [(1, 1), (2, 2), (3, 4), (4, 5)]
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 2


def failing_in(epoch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss that raises in the last of the three steps of an epoch."""
    steps = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        steps.append(len(labels))
        if len(steps) == 3 * epoch:
            raise RuntimeError("enough")
        return cross_entropy(logits, labels)

    return loss


def test_failed_training_keeps_log(photos: Path) -> None:
    with pytest.raises(zoo.UsageError, match="enough"):
        # With seconds given, an epoch ends with a checkpoint whatever the time.
        zoo.finetune(
            NAME, data=photos, epochs=5, loss=failing_in(3), checkpoint_every=1000, **SMALL
        )
    run = Path("runs/test_resnet-1")
    assert {path.name for path in run.iterdir()} == {"tensorboard", "checkpoints", MODEL}
    log = read(run)
    assert [event.step for event in log.Scalars("val/top1")] == [1, 2]
    assert log.Tags()["images"] == ["train/first_batch"]
    assert open_files(run) == []


def open_files(folder: Path) -> list[Path]:
    """Return the files in a folder that this process has open."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return [path for path in links if path.is_relative_to(folder.resolve())]


def test_failure_before_first_epoch_leaves_no_folder(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (None, mine):
        with pytest.raises(zoo.UsageError, match="enough"):
            zoo.finetune(NAME, data=photos, epochs=5, loss=failing_in(1), out=out, **SMALL)
    assert not Path("runs").exists()
    assert list(mine.iterdir()) == []


@pytest.mark.slow
def test_interrupted_training_keeps_log(photos: Path, tmp_path: Path) -> None:
    options = ["--weights", "none", "--input-size", "32", "--epochs", "100000", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "finetune", NAME, "--data", str(photos), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # SIGINT is ignored if pytest runs in the background, which a process inherits.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("all ") and " 2/" in line)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its decoding processes
        with process:
            pass
    steps = [event.step for event in read(tmp_path / "runs/test_resnet-1").Scalars("train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 1
    assert "warning" not in rest


def test_unwritable_log_is_one_warning(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = Options(data=photos, epochs=3, **SMALL)
    prepared = prepare_training(NAME, options, load_registry(), Progress(quiet=True))
    with caplog.at_level(logging.WARNING, "zoo"):
        result = fit(prepared, announce=lambda path: (path / "tensorboard").write_text("taken"))
    assert result.record["metrics"]["val"]["images"] == 9
    assert (result.path / "tensorboard").read_text() == "taken"
    warnings = [
        record.getMessage() for record in caplog.records if "tensorboard" in record.getMessage()
    ]
    assert len(warnings) == 1
    assert "failed in zoo_on_first_batch: FileExistsError" in warnings[0]


def test_full_disk_raises_once_in_its_hook(tmp_path: Path) -> None:
    # A limit on file size simulates a full disk, in its own process.
    # -B: the limit would truncate bytecode of modules imported later, without an error.
    code = """
import resource, signal, sys, zoo
from zoo_tensorboard import plugin
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
plugin.zoo_before_fit(zoo.FitStarted("a/b", {"classes": ["x"]}, sys.argv[1]))
failed = []
for number in range(1, 101):
    try:
        plugin.zoo_after_epoch(zoo.EpochEnded("all", number, 100, 0.1, 1.0, {}, True, 1.0))
    except OSError:
        failed.append(number)
plugin.zoo_after_fit(zoo.FitEnded("a/b", {}, 1.0, sys.argv[1]))
print(failed)
"""
    command = [sys.executable, "-B", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (failed,) = json.loads(done.stdout)
    assert 10 < failed < 100
    steps = [event.step for event in read(tmp_path).Scalars("train/loss")]
    assert steps == list(range(1, failed))
