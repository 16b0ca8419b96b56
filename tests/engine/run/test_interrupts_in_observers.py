"""Signals while an observer runs, and the files that it leaves in the run folder."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from tests.engine.run.observer_source import HOOKS
from tests.processes import started
from zoo.testing.fixtures import reset_caches

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}


@pytest.mark.parametrize("hook", HOOKS)
def test_interrupt_in_an_observer_is_an_interrupt(
    tinynet, image_folder, install, cli, hook, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("zoo.registry.plugin_code.HANGING", 0.0)
    install(
        "slow",
        f"""
        import os, signal, time
        import zoo

        @zoo.hookimpl
        def {hook}(event):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        """,
    )
    lr = "1e18" if hook == "zoo_on_error" else "0.01"
    options = ["--weights", "none", "--epochs", "2", "--optimizer", "sgd", "--lr", lr]
    with caplog.at_level(logging.WARNING, "zoo"):
        code, _, err = cli("finetune", tinynet, "--data", image_folder, *options)
    assert code == 130, err
    assert "slow" not in caplog.text  # it has not failed
    kept = {
        "zoo_after_fit": "nothing half-written is left",
        "zoo_on_error": "nothing half-written is left",
    }
    resumed = "resume it with `zoo finetune --resume runs/tinynet-1`"
    start, _, rest = err.splitlines()[-1].partition(" in ")
    assert start.startswith("zoo: interrupted: after ")
    plugin = f"{hook} of plugin 'slow', which ZOO_PLUGINS=-tensorboard,-regression,-report,-slow"
    assert rest == f"{plugin} switches off; {kept.get(hook, resumed)}"
    run = tmp_path / "runs" / "tinynet-1"
    checkpoints = len([*run.glob("checkpoints/checkpoint-*")])
    assert checkpoints == (hook not in ("zoo_before_fit", "zoo_on_first_batch", "zoo_on_error"))
    assert (run / "run.json").exists() is (hook == "zoo_after_fit")
    assert (run / "checkpoints" / "plan.json").exists() is (hook != "zoo_on_error")


@pytest.mark.parametrize("hook", ["zoo_before_fit", "zoo_after_step", "zoo_after_epoch"])
def test_interrupt_that_an_observer_catches_stops_training(tinynet, image_folder, install, hook):
    options = {**QUICK, "train": "all", "epochs": 2}
    whole = zoo.finetune(tinynet, data=image_folder, **options)
    install(
        "careless",
        f"""
        import os, signal, time
        import zoo

        @zoo.hookimpl
        def {hook}(event):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except:
                pass
        """,
    )
    reset_caches()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.finetune(tinynet, data=image_folder, **options, out="parts")
    assert interrupted.value.__notes__ == ["resume it with `zoo finetune --resume parts`"]
    (checkpoint,) = Path("parts/checkpoints").glob("checkpoint-*")
    state = json.loads((checkpoint / "state.json").read_text())
    assert (state["epoch"], state["step"]) == ((1, 0) if hook == "zoo_after_epoch" else (1, 1))
    zoo.configure(without=["careless"])
    resumed = zoo.finetune(resume="parts")
    names = [run.path / "model.safetensors" for run in (whole, resumed)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_sigterm_in_an_observer_terminates(tinynet, image_folder, install, tmp_path):
    install(
        "slow",
        """
        import time
        import zoo

        @zoo.hookimpl
        def zoo_after_epoch(event):
            print("called", flush=True)
            time.sleep(60)
        """,
    )
    options = ["--weights", "none", "--epochs", "2"]
    command = [sys.executable, "-m", "zoo", "finetune", tinynet, "--data", str(image_folder)]
    with started([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert "called\n" in process.stderr
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 143, rest
    assert [*(tmp_path / "runs" / "tinynet-1").glob("checkpoints/checkpoint-*")]


@pytest.mark.parametrize("how", ["interrupt", "diverge"])
def test_files_of_observers_stay_and_out_is_accepted_again(
    tinynet, image_folder, install, cli, how, tmp_path
):
    install(
        "notes",
        """
        import os, signal
        from pathlib import Path
        import zoo

        @zoo.hookimpl
        def zoo_before_fit(event):
            with (Path(event.folder) / "notes.txt").open("a") as file:
                file.write("begun\\n")
            if "INTERRUPT" in os.environ:
                os.kill(os.getpid(), signal.SIGINT)
        """,
    )
    given = ["--weights", "none", "--epochs", "1", "--train", "head", "--device", "cpu"]
    command = ["finetune", tinynet, "--data", image_folder, "--out", "out", *given]
    bad = ["--optimizer", "sgd", "--lr", "1e18", "--schedule", "constant", "--epochs", "3"]
    for number in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            if how == "interrupt":
                patch.setenv("INTERRUPT", "1")
            code, _, err = cli(*command, *(bad if how == "diverge" else ()))
        assert code == (130 if how == "interrupt" else 8), err
        kept = "out keeps what plugins wrote (notes.txt" + ", unfinished-1" * (number - 1)
        line = f"{kept}), and can be given as --out again"
        if how == "interrupt":
            line = "resume it with `zoo finetune --resume out`"
        assert err.splitlines()[-1].endswith(line)
        assert "half-written" not in err
    code, _, err = cli(*command)
    assert (code, "unfinished training is in unfinished-2" in err) == (0, True), err
    out = tmp_path / "out"
    assert (out / "notes.txt").read_text() == "begun\n"
    assert {(out / f"unfinished-{n}" / "notes.txt").read_text() for n in (1, 2)} == {"begun\n"}
    assert not (out / ".claim").exists()
    code, _, err = cli(*command)
    assert (code, "is not empty" in err) == (2, True)


def test_folder_of_someone_else_is_refused(tinynet, image_folder, cli, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    code, _, err = cli("finetune", tinynet, "--data", image_folder, "--out", "out")
    assert (code, "out is not empty" in err) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
