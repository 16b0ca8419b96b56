"""The Hugging Face hub: `zoo push`, and models at `hf:OWNER/NAME`, by a server on this machine."""

import base64
import hashlib
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

import zoo
from tests.networks import save_untrained
from zoo.models.hub import HubFile

CLASSES = ("flag", "mammal", "playing card")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub of one machine: repositories that are created, committed to and read."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.asked.append(f"POST {self.path}")
                self.reply(200, json.dumps(hub.post(self.path, body)).encode())

            def do_GET(self):
                hub.asked.append(f"{self.command} {self.path}")
                repository, _, name = self.path.strip("/").partition("/resolve/main/")
                content = hub.files.get(repository, {}).get(name)
                if content is None:
                    self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                    return
                digest = hashlib.sha256(content).hexdigest()
                self.reply(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

            do_HEAD = do_GET

            def reply(self, status, body, headers=()):
                self.send_response(status)
                for name, value in {**dict(headers), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def post(self, path: str, body: bytes):
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.files.setdefault(repository, {})
            return {"url": f"{self.url}/{repository}"}
        if "/preupload/" in path:
            names = [each["path"] for each in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": name, **regular} for name in names]}
        if "/commit/" in path:
            repository = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[repository][line["value"]["path"]] = content
            return {"commitUrl": f"{self.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        return {}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    running = Hub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield running
    running.close()


@pytest.fixture
def model(tinynet, tmp_path) -> Path:
    return save_untrained(tinynet, tmp_path / "tiny.safetensors", CLASSES)


def test_pushed_model_predicts_and_trains_from_the_hub(hub, model, image_folder, tmp_path, cli):
    code, out, err = cli("push", model, "oak/tiny", "--json")
    assert code == 0, err
    pushed = json.loads(out)
    assert (pushed["repository"], pushed["commit"]) == ("oak/tiny", COMMIT)
    assert pushed["files"] == ["README.md", "model.safetensors"]
    assert pushed["not_for_timm_because"].startswith("timm has no network named tinynet")
    assert hub.files["oak/tiny"]["model.safetensors"] == model.read_bytes()
    assert b"mammal" in hub.files["oak/tiny"]["README.md"]
    image = next((image_folder / "val" / "flag").iterdir())
    expected = zoo.predict(model, image, device="cpu")
    code, out, err = cli("predict", "hf:oak/tiny", image, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out) == expected
    weights = {"weights": "hf:oak/tiny", "device": "cpu"}
    run = zoo.finetune("tiny/tinynet", data=image_folder, out="run", epochs=1, **weights)
    assert run.record["base"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert zoo.load("tiny/tinynet", **weights).classes == CLASSES
    # A card that its owner has edited stays.
    hub.files["oak/tiny"]["README.md"] = b"mine"
    assert zoo.push(model, "oak/tiny")["files"] == ["model.safetensors"]
    assert hub.files["oak/tiny"]["README.md"] == b"mine"


def test_hub_refuses_pickles_and_reports_what_is_missing(hub, model, tmp_path, cli):
    hub.files["oak/old"] = {"model.safetensors": pickle.dumps({"a": 1}), "model.bin": b"\x80\x02"}
    code, _, err = cli("predict", "hf:oak/old:model.bin", "a.jpg")
    assert code == 2
    assert "is not a safetensors file; only safetensors are read from the hub" in err
    code, _, err = cli("predict", "hf:oak/old", "a.jpg")
    assert code == 4
    assert "model.safetensors" in err
    code, _, err = cli("predict", "hf:oak/none", "a.jpg")
    assert code == 4
    assert err.startswith("zoo: error: cannot download hf:oak/none: ")
    assert err.count("\n") == 1
    assert cli("predict", "hf:oak", "a.jpg")[2] == (
        "zoo: error: hf:oak is not an address on the Hugging Face hub; "
        "hf:OWNER/NAME, optionally with @REVISION and :FILE\n"
    )
    assert cli("push", "nowhere", "oak/tiny")[0] == 2
    assert cli("push", model, "oak/tiny:model.safetensors")[0] == 2
    assert not [each for each in hub.asked if each.startswith("POST")]


def test_hub_addresses_have_revision_and_file():
    assert HubFile.parse("hf:oak/n.1@v1.0:best/a.safetensors") == HubFile(
        "oak/n.1", "best/a.safetensors", "v1.0"
    )
    for text in ("hf:", "hf:a/b/c", "hf:../b", "hf:a/b@", "hf:a/b:../../c.safetensors"):
        with pytest.raises(zoo.UsageError):
            HubFile.parse(text)


@pytest.mark.slow  # builds networks of timm
def test_timm_loads_a_pushed_model(hub, tmp_path):
    torch.manual_seed(0)
    module = zoo.get("timm/resnet10t").build(classes=3)
    path = zoo.save(module, tmp_path / "small.safetensors", CLASSES)
    pushed = zoo.push(path, "oak/small")
    assert pushed["not_for_timm_because"] is None
    assert pushed["files"] == ["README.md", "config.json", "model.safetensors"]
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in hub.files["oak/small"].items():
        (folder / name).write_bytes(content)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), module.eval()(pixels))
