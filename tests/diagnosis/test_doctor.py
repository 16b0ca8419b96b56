"""`zoo doctor` and `zoo.doctor`: a whole installation, and broken ones."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import zoo
from zoo.diagnosis import computing
from zoo.diagnosis.check import Check, Diagnosis

NAMES = ["versions", "configuration", "plugins", "cache", "disk", "torch"]
NAMES += ["devices", "precision", "engines"]
BROKEN_TORCH = "raise OSError('libcudart.so.13: cannot open shared object file')\n"
DOCTOR = (sys.executable, "-m", "zoo", "doctor", "--no-plugin", "timm")


@pytest.fixture
def without_torch(tmp_path, monkeypatch):
    """A torch that cannot be imported, first on the path of processes."""
    package = tmp_path / "broken" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BROKEN_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def lines_of(text):
    """Return status, name and text of each line of a check."""
    found = re.findall(r"^(ok|warning|error) +(\w+) +(.*)$", text, re.MULTILINE)
    return [(status, name, rest) for status, name, rest in found]


def test_doctor_reports_each_part_in_one_line(cli):
    code, out, err = cli("doctor")
    assert code == 0, out + err
    lines = lines_of(out)
    assert len(lines) == len(out.splitlines())
    assert [*dict.fromkeys(name for _, name, _ in lines)] == NAMES
    text = {name: rest for _, name, rest in lines}
    assert f"zoo {zoo.__version__}, python {sys.version.split()[0]}, torch " in text["versions"]
    assert re.search(r"^torchvision, timm, .*: [\d,]+ backbones; switched off: ", text["plugins"])
    assert text["cache"].startswith(f"{os.environ['XDG_CACHE_HOME']}/zoo, ")
    assert text["engines"].startswith("torch ")
    assert text["precision"].startswith(("bf16, ", "fp32, "))


def test_doctor_in_python_returns_what_the_command_prints(cli):
    code, out, _ = cli("doctor", "--json")
    assert code == 0
    diagnosis = zoo.doctor()
    assert diagnosis.ok
    assert diagnosis.exit_code == 0
    theirs = json.loads(out)
    assert theirs["ok"] is True
    ours = diagnosis.to_dict()["checks"]
    assert [c["facts"].keys() for c in ours] == [c["facts"].keys() for c in theirs["checks"]]
    for each in ("versions", "plugins", "devices", "precision", "engines"):
        assert [c for c in ours if c["name"] == each] == [
            c for c in theirs["checks"] if c["name"] == each
        ]


def test_doctor_names_every_broken_part(cli, plugin_file, tmp_path, monkeypatch):
    bad = plugin_file("bad", "raise SystemExit('no licence')\n")
    registry = tmp_path / "registry.toml"
    registry.write_text("schema = 1\n[defaults]\nbatch_size = -1\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(registry))  # a file
    monkeypatch.setenv("ZOO_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    code, out, err = cli("doctor", "--plugin", bad, "--registry", registry)
    assert code == 6
    errors = {name: rest for status, name, rest in lines_of(out) if status == "error"}
    assert errors.keys() == {"configuration", "plugins", "cache"}
    assert f"{registry}" in errors["configuration"]
    assert "batch_size is -1" in errors["configuration"]
    assert f"bad (file {bad}) failed: SystemExit: no licence; " in errors["plugins"]
    assert f"`zoo plugins show bad --plugin {bad}` shows where" in errors["plugins"]
    assert errors["cache"].startswith(f"cannot write {registry}/zoo: Not a directory; ")
    assert "error: checks failed: configuration, plugins, cache; " in err.splitlines()[-1]
    code, out, _ = cli("doctor", "--registry", registry)
    assert code == 6
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cli("doctor", "--registry", registry)[0] == 2
    code, out, _ = cli("doctor", "--plugin", bad)
    assert code == 5
    missing = f"configuration  the folder of weights {tmp_path}/nowhere is missing; "
    assert re.search(f"^warning +{missing}", out, re.MULTILINE)


def test_doctor_reports_a_plugin_that_strict_mode_refuses(cli, install, monkeypatch):
    install("leaf", "import zoo\n\n\nraise RuntimeError('no leaf')\n")
    monkeypatch.setenv("ZOO_STRICT", "1")
    code, out, _ = cli("doctor")
    assert code == 5
    ((_, name, text),) = [line for line in lines_of(out) if line[0] == "error"]
    assert name == "plugins"
    assert "RuntimeError: no leaf" in text


def test_doctor_reports_versions_that_do_not_fit(cli, tmp_path, monkeypatch):
    info = tmp_path / "site" / "torch-2.3.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.3.0\n")
    monkeypatch.syspath_prepend(str(info.parent))
    code, out, _ = cli("doctor")
    assert code == 6
    errors = [
        rest for status, name, rest in lines_of(out) if (status, name) == ("error", "versions")
    ]
    assert any(e.startswith("zoo-registry needs torch>=2") for e in errors)
    assert all("and torch 2.3.0 is installed; pip install 'torch" in e for e in errors)


def test_doctor_works_where_torch_cannot_be_imported(without_torch, tmp_path):
    done = subprocess.run([*DOCTOR, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    *others, torch = json.loads(done.stdout)["checks"]
    assert {check["name"] for check in others} == {*NAMES[:5]}
    assert (torch["name"], torch["status"]) == ("torch", "error")
    assert "OSError: libcudart.so.13: cannot open shared object file" in torch["summary"]
    assert "https://pytorch.org" in torch["hint"]


def test_doctor_names_an_accelerator_that_torch_cannot_use(cli, tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch uses the accelerator")
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr(computing, "DRIVERS", {str(driver): ("NVIDIA GPU", "CUDA")})
    code, out, _ = cli("doctor")
    assert code == 0
    assert re.search("^warning +devices +there is an NVIDIA GPU, and torch ", out, re.MULTILINE)


def test_exit_code_is_that_of_the_cause():
    broken = [Check("a", "", "error", exit_code=code) for code in (1, 5, 2, 6)]
    codes = [Diagnosis(tuple(broken[:count])).exit_code for count in range(5)]
    assert codes == [0, 1, 5, 2, 6]
    with pytest.raises(zoo.BrokenPlugin, match="checks failed: a"):
        Diagnosis(tuple(broken[:2])).raise_failed()
    assert Check.failed("a", KeyError("k")).exit_code == 1
    assert Check.failed("a", PermissionError("no")).exit_code == 6


@pytest.mark.slow
@pytest.mark.faults
def test_doctor_names_read_only_cache_and_full_disk(without_torch, tmp_path):
    mounts = "mkdir -p ro/zoo full\nmount -t tmpfs -o size=1m tmpfs full\n"
    mounts += "mount --bind ro ro\nmount -o remount,ro,bind ro\n"
    command = "cd full; XDG_CACHE_HOME=$OLDPWD/ro TMPDIR=/tmp " + " ".join(DOCTOR)
    isolated = ["unshare", "-rm", "bash", "-c", f"set -e\n{mounts}{command}"]
    done = subprocess.run(isolated, capture_output=True, text=True, cwd=tmp_path)
    if not shutil.which("unshare") or "unshare" in done.stderr:
        pytest.skip("needs a mount namespace")
    assert done.returncode == 6, done.stderr
    errors = [(name, rest) for status, name, rest in lines_of(done.stdout) if status == "error"]
    cache, disk = (next(rest for name, rest in errors if name == part) for part in NAMES[3:5])
    assert cache.startswith(f"cannot write {tmp_path}/ro/zoo")
    assert "Read-only file system; the file system is read-only; choose another folder" in cache
    assert disk.startswith(f"0.0 GiB free in {tmp_path}/full (for runs files); free some space")
