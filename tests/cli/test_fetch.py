"""`zoo fetch`: a folder of published weights from a local server, used without one afterwards."""

import contextlib
import hashlib
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import zoo
from tests.processes import started
from tests.published_weights import checkpoint
from zoo.models.download import resume_download
from zoo.models.weight_sources import locate
from zoo.models.weights import fetch

CONTENT = {"weight": torch.randn(3, 4), "bias": torch.zeros(3)}
PLUGIN = """
import zoo
from torch import nn

def build(weights=None):
    return nn.Linear(4, 3)

def _backbone(name, **where):
    weights = (zoo.Weights("one", num_classes=3, **where),) if where else ()
    return zoo.Backbone(
        name=name, builder="plugin_leaf:build", heads=(), refuse="a test", weights=weights,
        preprocess=zoo.Preprocess(size=32),
    )

@zoo.hookimpl
def zoo_register_backbones():
    yield _backbone("oak", url="{address}/oak-{digits}.pth")
    yield _backbone("ash", url="{address}/sub/ash-{digits}.pth")
    yield _backbone("wrong", url="{address}/wrong-{digits}.pth")
    yield _backbone("missing", url="{address}/missing-{digits}.pth")
    yield _backbone("hub", hub="lab/leaf:leaf.pth")
    yield _backbone("bare")
"""


DATA = checkpoint(CONTENT)
SHA256 = hashlib.sha256(DATA).hexdigest()
OAK = f"oak-{SHA256[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Serve one file by any name, in part or whole; `wrong` reversed, `missing` not at all."""

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        self.server.asked.append((self.path, self.headers.get("Range")))
        name = Path(self.path).name
        if name.startswith("missing"):
            self.send_error(404)
            return
        data = DATA[::-1] if name.startswith("wrong") else DATA
        wanted = self.headers.get("Range") if self.server.ranges else None
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - start))
        # As the hub answers.
        self.send_header("X-Repo-Commit", "abc")
        self.send_header("ETag", f'"{SHA256}"')
        self.end_headers()
        end, self.server.break_at = self.server.break_at or len(data), None
        if body:
            self.wfile.write(data[start:end])
            self.wfile.flush()
            self.server.go_on.wait(timeout=60)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(install, own_cache, monkeypatch):
    """A server of files that the plugin's backbones name; `break_at` ends one answer early."""
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked, running.ranges, running.break_at = [], True, None
    running.go_on = threading.Event()
    running.go_on.set()
    running.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    source = PLUGIN.replace("{address}", running.address).replace("{digits}", SHA256[:8])
    install("leaf", source)
    yield running
    running.go_on.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path) -> Path:
    """An existing, empty folder."""
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    """Return the visible files below a folder."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if not path.name.startswith("."))


def test_fetched_folder_replaces_server(server, cli, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    code, out, _ = cli("fetch", "oak", "leaf/ash", "--to", folder, "--json")
    items = json.loads(out)
    assert code == 0
    assert [(item["backbone"], item["status"]) for item in items] == [
        ("leaf/oak", "downloaded"),
        ("leaf/ash", "downloaded"),
    ]
    assert {item["sha256"] for item in items} == {SHA256}
    assert {item["bytes"] for item in items} == {len(DATA)}
    assert names(folder) == ["SHA256SUMS", f"ash-{SHA256[:8]}.pth", OAK]
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder)
    assert done.returncode == 0
    monkeypatch.setenv("ZOO_WEIGHTS_DIR", str(folder))
    asked = len(server.asked)
    oak = zoo.get("oak")
    assert locate(oak, oak.weights[0]).kind == "folder"
    assert torch.equal(fetch(oak, oak.weights[0]).tensors["weight"], CONTENT["weight"])
    assert len(server.asked) == asked


def test_fetch_verifies_what_is_there(server, cli, folder):
    assert cli("fetch", "oak", "--to", folder)[0] == 0
    code, out, _ = cli("fetch", "oak", "--to", folder)
    assert (code, len(server.asked)) == (0, 1)
    assert "present" in out
    (folder / OAK).write_bytes(DATA[:-1])
    assert cli("fetch", "oak", "--to", folder, "--quiet")[0] == 0
    assert (folder / OAK).read_bytes() == DATA
    assert len(server.asked) == 2


@pytest.mark.parametrize("ranges", [True, False], ids=["range", "whole"])
def test_interrupted_fetch_is_resumed(server, cli, folder, ranges):
    server.break_at, server.ranges = 100, ranges
    code, _, err = cli("fetch", "oak", "--to", folder)
    assert (code, names(folder)) == (4, [])
    assert "1 of 1 not fetched: leaf/oak one: " in err
    assert (folder / f".{OAK}.part").stat().st_size == 100
    assert cli("fetch", "oak", "--to", folder)[0] == 0
    assert server.asked[-1] == (f"/{OAK}", "bytes=100-")
    assert (folder / OAK).read_bytes() == DATA
    assert not (folder / f".{OAK}.part").exists()


@pytest.mark.parametrize("part", [b"of another file", DATA, DATA + b"more"])
def test_unfit_part_is_downloaded_again(server, cli, folder, part):
    (folder / f".{OAK}.part").write_bytes(part)
    assert cli("fetch", "oak", "--to", folder)[0] == 0
    assert (folder / OAK).read_bytes() == DATA


def test_fetch_errors_are_shown_together(server, cli, folder):
    code, out, err = cli("fetch", "wrong", "oak", "missing", "--to", folder, "--json")
    assert code == 4
    assert "2 of 3 not fetched" in err
    assert "leaf/wrong one: wrong-" in err
    assert "is not the file that was published" in err
    assert "leaf/missing one: " in err
    assert "answered 404" in err
    assert [item.get("status") for item in json.loads(out)] == [None, "downloaded", None]
    assert names(folder) == ["SHA256SUMS", OAK]
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


def test_fetch_unknown_names_fetch_nothing(server, cli, tmp_path):
    code, _, err = cli("fetch", "oak", "oakk", "bare", "--to", tmp_path / "weights")
    assert code == 2
    assert "2 names are wrong: no backbone is named 'oakk'" in err
    assert "leaf/bare has no published weights" in err
    code, _, err = cli("fetch", "oak", "--weights", "two", "--to", tmp_path / "weights")
    assert (code, "publishes no weights tagged 'two'" in err) == (2, True)
    assert not (tmp_path / "weights").exists()
    assert server.asked == []


def test_fetch_copies_what_torch_has_downloaded(server, cli, tmp_path, monkeypatch):
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / OAK).write_bytes(DATA)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    code, out, _ = cli("fetch", "oak", "--to", tmp_path / "weights")
    assert (code, server.asked) == (0, [])
    assert "copied" in out
    assert (tmp_path / "weights" / OAK).read_bytes() == DATA


def test_fetch_of_the_hub_lists_digest(server, zoo_process, tmp_path):
    where = {"HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1"}
    folder = tmp_path / "weights"
    done = zoo_process("fetch", "leaf/hub", "--to", str(folder), "--json", **where)
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)
    assert (item["status"], item["sha256"]) == ("downloaded", SHA256)
    assert names(folder) == ["SHA256SUMS", "lab/leaf/leaf.pth"]
    assert (folder / "SHA256SUMS").read_text() == f"{SHA256}  lab/leaf/leaf.pth\n"


def test_download_with_damaged_encryption_is_no_write_error(monkeypatch, tmp_path):
    class Response(contextlib.nullcontext):
        status, headers = 200, {}

        def read1(self, size):
            raise ssl.SSLError(1, "bad record mac")

    answer = Response()
    answer.enter_result = answer
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: answer)
    broke_off = pytest.raises(zoo.WeightsError, match=r"broke off: .*bad record mac")
    with (tmp_path / "part").open("ab") as file, broke_off:
        resume_download("http://localhost/oak.pth", file)


def test_fetch_into_unwritable_folder_is_environment(server, cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = cli("fetch", "oak", "--to", tmp_path / "file" / "weights")
    assert (code, "cannot write" in err) == (6, True)
    assert server.asked == []


def test_fetch_after_ctrl_c_is_resumed(server, cli, folder):
    server.break_at = 100
    server.go_on.clear()
    part = folder / f".{OAK}.part"
    command = [sys.executable, "-m", "zoo", "fetch", "oak", "--to", str(folder)]
    with started(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)  # it waits for the rest
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    server.go_on.set()
    assert process.returncode == 130
    assert "a download that broke off is resumed by the same command" in err
    assert names(folder) == []
    assert part.read_bytes() == DATA[:100]
    assert cli("fetch", "oak", "--to", folder)[0] == 0
    assert (folder / OAK).read_bytes() == DATA
