"""Standard streams and signals: full disks, closed pipes, SIGTERM, unprintable names."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from tests.processes import ZOO, shell, started
from zoo.cli import _run
from zoo.cli.group import Settings
from zoo.cli.output import print_json, print_table
from zoo.errors import ExitCode
from zoo.registry.registry import load_registry

UNPRINTABLE = "a\nb\x1b[31m.jpg"


@pytest.fixture
def catalogues():
    """Read the catalogues, which prints a notice the first time."""
    load_registry().find()


def cli(capsys, *arguments):
    """Run a command in this process; return exit code, stdout, stderr."""
    code = _run([str(argument) for argument in arguments], Settings())
    out, err = capsys.readouterr()
    return code, out, err


def test_no_arguments_prints_help_to_stderr(zoo_process):
    done, help_run = zoo_process(), zoo_process("--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == help_run.stdout
    assert "\n  finetune " in done.stderr


@pytest.mark.parametrize("arguments", ["plugins --no-plugin timm", "--help"])
def test_full_disk_exits_with_6(tmp_path, arguments):
    code, _, err = shell(f"zoo {arguments} >/dev/full", tmp_path)
    assert code == 6
    assert err == "zoo: error: No space left on device: stdout\n"


def test_full_disk_with_json_exits_with_6(tmp_path):
    code, _, err = shell("zoo plugins --no-plugin timm --json >/dev/full", tmp_path)
    failure = {"kind": "OSError", "message": "No space left on device: stdout", "hint": None}
    assert (code, json.loads(err)) == (6, {**failure, "exit_code": 6})


NOISY = """
    import os
    import subprocess
    import sys
    import zoo

    def shout(place):
        import ctypes

        print(place, "print")
        sys.__stdout__.write(f"{place} stream\\n")
        os.write(1, f"{place} descriptor\\n".encode())
        ctypes.CDLL(None).puts(f"{place} native".encode())
        subprocess.run(["echo", place, "child"], check=True)

    shout("import")

    @zoo.hookimpl
    def zoo_register_backbones():
        shout("hook")
        yield zoo.Backbone("noisy", "plugin_noisy:build", (zoo.Head("1"),),
                           zoo.Preprocess(size=32))

    @zoo.hookimpl
    def zoo_after_fit(event):
        shout("observer")

    def build(weights=None):
        from torch import nn

        class Noisy(nn.Flatten):
            def forward(self, inputs):
                shout("forward")
                return super().forward(inputs)

        shout("build")
        return nn.Sequential(Noisy(), nn.Linear(3072, 2))
"""
WAYS = ("print", "stream", "descriptor", "native", "child")


def test_stdout_is_only_json_whatever_prints(tmp_path, install, image_folder):
    install("noisy", NOISY)
    options = "--weights none --train all --epochs 1 --device cpu --quiet --json"
    code, out, err = shell(f"zoo finetune noisy --data {image_folder} {options}", tmp_path)
    assert code == 0, err
    record = json.loads(out)
    assert record["folder"] == str(tmp_path / "runs" / "noisy-1")
    written = json.loads((tmp_path / "runs" / "noisy-1" / "run.json").read_text())
    assert {name: value for name, value in record.items() if name != "folder"} == written
    places = ("import", "hook", "build", "forward", "observer")
    assert {f"{place} {way}" for place in places for way in WAYS} <= set(err.splitlines())


@pytest.mark.parametrize("command", ["show noisy --json", "list noisy/* --json"])
def test_stdout_of_light_commands_is_only_json(tmp_path, install, command):
    install("noisy", NOISY)
    code, out, err = shell(f"zoo --no-plugin timm {command}", tmp_path)
    assert code == 0, err
    shown = json.loads(out)
    assert (shown[0] if isinstance(shown, list) else shown)["id"] == "noisy/noisy"
    assert {f"import {way}" for way in WAYS} <= set(err.splitlines())


def test_stdout_is_restored_after_json(capfd, install):
    install("noisy", NOISY)
    assert _run(["show", "noisy", "--json"], Settings()) == 0
    print("printed")
    os.write(1, b"written\n")
    out, err = capfd.readouterr()
    shown, end = json.JSONDecoder().raw_decode(out)
    assert shown["id"] == "noisy/noisy"
    assert {"printed", "written"} <= set(out[end:].split())
    assert "import descriptor" in err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "kind", "code", "message", "hint"),
    [
        (["show", "lite00"], "UnknownBackbone", 2, "no backbone is named 'lite00'", "lite0"),
        (["list", "--sort", "no"], "UsageError", 2, "no", "see `zoo list --help`"),
        (["no-such"], "UsageError", 2, "no command is named 'no-such'", None),
        (["check", "no-such"], "DataError", 3, "no-such", ""),
        (["predict", "no.safetensors", "x.jpg"], "WeightsError", 4, "no.safetensors", None),
    ],
)
def test_errors_with_json_are_objects(capsys, arguments, kind, code, message, hint):
    exit_code, out, err = cli(capsys, *arguments, "--json")
    failure = json.loads(err.splitlines()[-1])
    assert list(failure) == ["kind", "message", "hint", "exit_code"]
    assert (exit_code, out, failure["exit_code"]) == (code, "", code)
    assert failure["kind"] == kind
    assert message in failure["message"]
    assert failure["hint"] is None if hint is None else hint in failure["hint"]
    assert err.count("\n") == 1
    text = cli(capsys, *arguments)[2]
    assert text.startswith("zoo: error: ")


@pytest.mark.parametrize("kind", [KeyError, EOFError])
def test_bug_with_json_is_an_object(capsys, monkeypatch, kind):
    def fail(value):
        raise kind("name")

    monkeypatch.setattr("zoo.cli.list.print_json", fail)
    code, _, err = cli(capsys, "list", "--json")
    failure = json.loads(err)
    assert (code, failure["kind"], failure["exit_code"]) == (1, kind.__name__, 1)
    assert "--debug" in failure["hint"]


def test_json_after_double_dash_is_an_argument(capsys):
    code, _, err = cli(capsys, "show", "--", "--json")
    assert code == 2
    assert err.startswith("zoo: error: ")


def test_exit_code_with_unwritable_stderr(tmp_path):
    assert shell("zoo show no_such 2>/dev/full", tmp_path) == (2, "", "")


def test_failing_flush_exits_with_6(capsys, monkeypatch):
    def refuse():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.cli.list.print_json", lambda value: None)
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "flush", refuse)
        assert _run(["list", "--json"], Settings()) == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("zoo list resnet18 2>&-", 0, "timm/resnet18"),
        ("zoo finetune lite0 --dry-run 2>&-", 0, "efficientnet_lite/lite0"),
        ("zoo show no_such 2>&-", 2, ""),
        ("zoo list resnet18 --json >&-", 0, ""),
        ("zoo show no_such <&- >&- 2>&-", 2, ""),
    ],
)
def test_closed_standard_streams(tmp_path, line, code, words, catalogues):
    exit_code, out, err = shell(line, tmp_path)
    assert (exit_code, err) == (code, "")
    assert words in out
    assert bool(words) == bool(out)
    assert not {"zoo:", "DEMONSTRATION:"} & set(out.split())


def test_closed_pipe_exits_with_0(tmp_path, catalogues):
    for reader, read in (("head -1", "[\n"), ("true", "")):
        code, out, err = shell(f"zoo list --json | {reader}", tmp_path)
        assert (code, out, err) == (0, read, "")


def test_pipe_without_reader_exits_with_0(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "zoo", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_other_broken_pipe_exits_with_6(capsys, monkeypatch):
    def fail(value):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("zoo.cli.list.print_json", fail)
    code, _, err = cli(capsys, "list", "--json")
    assert code == 6
    assert "has exited" in err


def test_sigterm_to_process_group_is_one_line(tmp_path, install):
    """As `timeout`, a batch system or a closed terminal sends it: to the workers too."""
    install(
        "tiny",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone("tiny", "plugin_tiny:build", (zoo.Head("1"),),
                               zoo.Preprocess(size=32))

        def build(weights=None):
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
        """,
    )
    command = f"{ZOO} finetune tiny --weights none --train all --epochs 1000 --workers 2"
    with started(shlex.split(command), stderr=subprocess.PIPE, cwd=tmp_path) as running:
        line = next((line for line in running.stderr if " 1/1000 " in line), None)
        assert line
        os.killpg(running.pid, signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    rest = [line for line in err.splitlines() if "/1000 " not in line]
    line = "zoo: terminated: resume it with `zoo finetune --resume runs/tiny-1`"
    assert (running.returncode, rest) == (143, [line])


IMPORTING = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click.core":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["list"]
runpy.run_module("zoo", run_name="__main__", alter_sys=True)
"""


def test_interrupt_while_importing_is_one_line():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "zoo: interrupted: nothing half-written is left\n"


@pytest.mark.parametrize("where", ["destructor", "fork"])
@pytest.mark.parametrize(
    ("number", "code", "message"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")]
)
def test_signal_in_destructor_or_fork_is_resent(tmp_path, where, number, code, message):
    program = f"""
import os, signal, time
from zoo.cli import main
from zoo.cli.group import zoo_group

def signalled():
    os.kill(os.getpid(), signal.{number})
    time.sleep(1)

class Slow:
    def __del__(self):
        signalled()

def work(*args, **kwargs):
    if {where!r} == "destructor":
        Slow()
    else:
        os.register_at_fork(after_in_parent=signalled)
        if not os.fork():
            os._exit(0)
    time.sleep(60)

zoo_group.main = work
main()
"""
    # From 3.12 on Python warns in `__main__` of a fork beside a thread, here the one that resends.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    assert done.returncode == code
    assert done.stderr == f"zoo: {message}: nothing half-written is left\n"


@pytest.mark.parametrize("terminated", [True, False])
def test_unraisable_error_after_sigterm_is_silent(tmp_path, terminated):
    program = f"""
import os, signal
from zoo.cli import main
from zoo.cli.group import zoo_group

class Half:
    def __init__(self):
        if {terminated}:
            os.kill(os.getpid(), signal.SIGTERM)
        self.whole = 1 / 0

    def __del__(self):
        self.whole += 1

def work(*args, **kwargs):
    try:
        Half()
    except ZeroDivisionError:
        raise KeyboardInterrupt from None

zoo_group.main = work
main()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    assert done.returncode == (143 if terminated else 130)
    assert ("has no attribute 'whole'" in done.stderr) is not terminated
    assert not terminated or done.stderr == "zoo: terminated: nothing half-written is left\n"


def test_error_after_sigterm_exits_as_terminated(capsys, monkeypatch):
    def fail(value):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    monkeypatch.setattr("zoo.cli.list.print_json", fail)
    settings = Settings()
    settings.terminated = True
    assert _run(["list", "--json"], settings) == ExitCode.TERMINATED
    failure = json.loads(capsys.readouterr().err)
    assert (failure["kind"], failure["exit_code"]) == ("Terminated", 143)
    assert failure["message"] == "nothing half-written is left"


def test_unprintable_names_escaped_but_exact_in_json(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [UNPRINTABLE, os.fsdecode(b"\xff.jpg")]
    for name in names:
        (tmp_path / name).write_text("words")
    code, out, err = cli(capsys, "predict", "lite0", *names)
    assert code == 3
    assert out.splitlines()[0::2] == [r"a\nb\x1b[31m.jpg", r"\udcff.jpg"]
    assert "\x1b" not in out + err
    assert err.count("\n") == 1
    assert "the others" not in err
    code, out, _ = cli(capsys, "predict", "lite0", *names, "--json")
    assert code == 3
    assert [answer["path"] for answer in json.loads(out)] == names


def test_unprintable_names_in_table(capsys):
    print_table(["CLASS", "N"], [["a\nb\x1b[31m\udcff", "1"], ["c", "2"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["CLASS".ljust(20) + "N", r"a\nb\x1b[31m\udcff  1", "c".ljust(20) + "2"]


def test_print_json_rejects_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        print_json({"loss": float("nan")})


def test_predict_weights_with_model_file_rejected(capsys):
    for weights in ("nonsense", "auto"):
        code, out, err = cli(capsys, "predict", "m.safetensors", "x.jpg", "--weights", weights)
        assert (code, out) == (2, "")
        assert f"--weights {weights} does not apply to m.safetensors" in err


def test_bad_images_reason_as_given_or_auto(capsys):
    reasons = []
    for option in ([], ["--bad-images", "error"]):
        _, out, _ = cli(capsys, "finetune", "lite0", "--dry-run", "--json", *option)
        reasons.append(json.loads(out)["reasons"]["bad_images"])
    assert reasons[0] != "as given"
    assert reasons[1] == "as given"
