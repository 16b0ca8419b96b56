"""Shared fixtures: isolated caches, installed plugins, the command line as a process."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.networks import image_folder, odd, plainnet, tinynet  # noqa: F401 - fixtures
from zoo.testing.fixtures import reset_caches

# Hundreds of tests start a process that imports torch, which should not compile it each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Background jobs of a shell ignore SIGINT, and their child processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two test processes share two cores; more threads would only contend.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where weights are looked for, beside the folder of caches.
WEIGHT_FOLDERS = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TORCH_HOME",
    "ZOO_WEIGHTS_DIR",
)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """One cache for the whole session, so that catalogues and weights are computed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, shared_cache, tmp_path_factory) -> None:
    """Isolate tests from the user's caches, configuration and switches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data_home")))
    # Two would write into every run folder, the other list its backbones everywhere.
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-report")
    for variable in ("ZOO_STRICT", "ZOO_TRACE_HOOKS", *WEIGHT_FOLDERS):
        monkeypatch.delenv(variable, raising=False)
    reset_caches()


@pytest.fixture
def own_cache(monkeypatch, tmp_path_factory) -> Path:
    """An empty cache; returns its folder."""
    folder = tmp_path_factory.mktemp("own_cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "zoo"


@pytest.fixture
def stranger() -> str:
    """A command that runs another as a user who has no rights of root, nor an entry in the list."""
    command = "unshare --map-user=12345 --map-group=12345"
    if not shutil.which("unshare") or subprocess.run([*command.split(), "true"]).returncode:
        pytest.skip("needs a user namespace")
    return command


@pytest.fixture
def in_empty_folder(monkeypatch, tmp_path) -> None:
    """Change into an empty folder; `install` and `cli` write beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a plugin: a module and a dist-info folder on the path."""
    site = tmp_path / "site"
    site.mkdir()

    def install_plugin(
        name: str,
        source: str,
        version: str = "1.0",
        package: str | None = None,
        point: str = "",
        requires: str = "",
    ):
        package = package or f"plugin-{name}"
        module = package.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{requires}"
        )
        (info / "entry_points.txt").write_text(f"[zoo]\n{name} = {point or module}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n")
        return module

    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    before = set(sys.modules)
    yield install_plugin
    for module in set(sys.modules) - before:
        if module.startswith("plugin_"):
            del sys.modules[module]


@pytest.fixture
def plugin_file(tmp_path, monkeypatch):
    """Return a function that writes a python file for `--plugin`, from its stem and source."""
    folder = tmp_path / "plugin_files"

    def write(stem: str, source: str) -> Path:
        # Of a package that another test installed and imported in this process.
        origin = getattr(sys.modules.get(stem), "__file__", None) or ""
        if Path(origin).is_relative_to(tmp_path.parent):
            monkeypatch.delitem(sys.modules, stem)
        file = folder / f"{stem}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(source))
        return file

    return write


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command in this process; returns code, stdout, stderr."""
    from zoo.cli import _run
    from zoo.cli.group import Settings

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = _run([str(argument) for argument in arguments], Settings())
        out, err = capsys.readouterr()
        return int(code), out, err

    return run


@pytest.fixture
def zoo_process(tmp_path):
    """Return a function that runs the command line in a subprocess, in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "zoo", *arguments],
            capture_output=True,
            text=True,
            cwd=environment.pop("cwd", tmp_path),
            env={**os.environ, **environment},
            timeout=600,
        )

    return run


class FileServer:
    """A local HTTP server of one file: complete, reversed, truncated or missing, by path."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.data = b""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def __call__(self, data: bytes) -> tuple[str, str]:
        """Serve these bytes; return the address and the first digits of their digest."""
        self.data = data
        digits = hashlib.sha256(data).hexdigest()[:8]
        return f"http://127.0.0.1:{self.server.server_port}", digits

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        if request.path.startswith("/missing"):
            request.send_error(404)
            return
        body = self.data[::-1] if request.path.startswith("/wrong") else self.data
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = request.path.startswith("/half")
        request.wfile.write(body[: len(body) // 2] if half else body)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def file_server():
    """A server of one file."""
    running = FileServer()
    yield running
    running.close()
