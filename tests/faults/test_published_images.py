"""Collections of images that others published: Pillow's own, broken ones, and huge ones."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import ExifTags, Image

from tests.faults.conftest import FOLDER, zoo_command
from zoo.data.decode import MAX_PIXELS
from zoo.data.formats import FORMATS, is_image

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

SECONDS, SECONDS_EACH = 900, 60
# Memory that reading an image may take beside its pixels, and for each of them.
MIB, BYTES_PER_PIXEL = 64, 24
# Of each thread that reads an image of the most pixels, and of the process.
THREAD_MIB, PROCESS_MIB = 2560, 512


def fetched(cache: pytest.Cache, name: str, commands: list[list[str]]) -> Path:
    """Return a folder of the cache that commands fill; skip the test where one of them fails."""
    folder = Path(cache.mkdir("images")) / name
    if not folder.exists():
        part = folder.with_name(f"{name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for command in commands:
            line = " ".join(command)
            if not shutil.which(command[0]):
                pytest.skip(f"needs {command[0]}")
            done = subprocess.run(["sh", "-c", line], cwd=part, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"needs what `{line}` fetches")
        part.rename(folder)
    return folder


@pytest.fixture
def pillow_images(pytestconfig) -> Path:
    """Pillow's test images, of its source distribution."""
    package = f"pillow=={PIL.__version__}"
    command = ["uvx", "pip", "download", "--no-deps", "--no-binary", "pillow", package]
    folder = fetched(pytestconfig.cache, f"pillow-{PIL.__version__}", [command])
    images = folder / "images"
    if not images.exists():
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder / "part", filter="data")
        next(folder.glob("part/*/Tests/images")).rename(images)
        shutil.rmtree(folder / "part")
    return images


@pytest.fixture
def clipart(pytestconfig) -> Path:
    """The images of Debian's package openclipart-png."""
    commands = [["apt-get", "download", "openclipart-png"], ["dpkg-deb", "-x", "*.deb", "."]]
    return fetched(pytestconfig.cache, "openclipart", commands)


def read_all(reader: str, folder: Path) -> dict[str, dict]:
    """Read each file of a folder in one process; return its row by path."""
    command = [sys.executable, FOLDER / "read_images.py", reader, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stderr if reader == "zoo" else "") == (0, "")
    return {row["path"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_pillow_test_images_are_read_or_refused(pillow_images):
    zoo, pillow = (read_all(reader, pillow_images) for reader in ("zoo", "Pillow"))
    assert zoo.keys() == pillow.keys()
    read = {path: row for path, row in zoo.items() if "size" in row}
    refused = {path: row for path, row in zoo.items() if "reason" in row}
    print(f"{len(zoo)} files: {len(read)} read, {len(refused)} refused")
    print(Counter(row["reason"] for row in refused.values()).most_common())
    assert len(read) + len(refused) == len(zoo) > 1000
    assert len(read) > 700
    compared = 0
    for path, row in read.items():
        reference = pillow[path]
        assert row["sizes"] == [row["size"]] * 3, path
        if "size" in reference:
            assert row["size"] == reference["size"], path
        if "pixels" in reference:
            assert row["pixels"] == reference["pixels"], path
            compared += 1
    assert compared > 650
    # A JPEG that lacks its last bytes, which zoo completes, and one for pillow-heif.
    others = {path for path in read if "raised" in pillow[path]} - {"avif/hopper.heif"}
    assert others == {"truncated_jpeg.jpg"}
    assert all(row["named"] and row["reason"] for row in refused.values())
    formats = {path: pillow[path].get("format") for path in refused if "size" in pillow[path]}
    assert not {path for path, name in formats.items() if name in (*FORMATS, "MPO")}
    for path, row in zoo.items():
        width, height = row.get("size", (0, 0))
        assert row["seconds"] < SECONDS_EACH, path
        assert row["mib"] < MIB + BYTES_PER_PIXEL * width * height / 2**20, path


@pytest.mark.slow
def test_both_readers_are_compared_by_pixels():
    """Turned and transparent images are equal, a file that is cut is refused by both."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 16, 4), np.uint8)
    folder = Path("images")
    folder.mkdir()
    Image.fromarray(noise).save(folder / "whole.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise[..., :3]).save(folder / "turned.jpg", exif=exif)
    content = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(255 - noise).save(folder / "other.png")
    zoo, pillow = (read_all(reader, folder) for reader in ("zoo", "Pillow"))
    for name in ("whole.png", "turned.jpg", "other.png"):
        assert zoo[name]["pixels"] == pillow[name]["pixels"]
    assert zoo["turned.jpg"]["size"] == [24, 16]
    assert zoo["whole.png"]["pixels"] != zoo["other.png"]["pixels"]
    assert (zoo["cut.png"]["reason"], "raised" in pillow["cut.png"]) == ("truncated", True)


def is_clean(errors: str) -> bool:
    """Whether each line is one of zoo's, or a JSON object."""
    return all(line.startswith(("zoo: ", "data: ", "{", "all ")) for line in errors.splitlines())


def test_training_and_prediction_skip_pillow_test_images(pillow_images, tinynet):
    data = Path("data")
    for path in sorted(pillow_images.rglob("*")):
        if path.is_file():
            name = "-".join(path.relative_to(pillow_images).parts)
            folder = data / "ab"[sha256(name.encode()).digest()[0] % 2]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
    options = ["--data", data, "--weights", "none", "--device", "cpu", "--train", "all"]
    train = zoo_command("finetune", tinynet, *options, "--epochs", "1", "--out", "run")
    done = run(train)
    assert done.returncode == 3
    assert "images cannot be read: " in done.stderr.splitlines()[-1]
    assert not Path("run").exists()
    done = run([*train, "--bad-images", "skip"])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "weights none, cpu" not in line]
    assert is_clean("\n".join(lines)), done.stderr
    done = run(zoo_command("predict", "run", data, "--json"))
    assert done.returncode == 3
    assert is_clean(done.stderr), done.stderr
    answers = json.loads(done.stdout)
    failed = [answer for answer in answers if "error" in answer]
    print(f"{len(answers)} images: {len(failed)} refused")
    assert len(answers) == sum(is_image(path.name) for path in data.rglob("*"))
    assert 0 < len(failed) < len(answers) / 10
    assert all(answer["path"] in answer["error"] for answer in failed)


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def png_pixels(path: Path) -> int:
    """Return the number of pixels that the header of a PNG states."""
    with path.open("rb") as file:
        header = file.read(24)
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", header[16:])
    return width * height


def test_bombs_of_openclipart_are_refused_by_name(clipart, finetune):
    paths = [path for path in clipart.rglob("*.png") if path.is_file()]
    bombs = {str(path) for path in paths if png_pixels(path) > MAX_PIXELS}
    assert run(finetune("--train", "all", "--epochs", "1", "--out", "run")).returncode == 0
    done = run(zoo_command("predict", "run", clipart, "--json-lines", "--top", "1"))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    failed = {answer["path"]: answer["error"] for answer in answers if "error" in answer}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{len(answers)} images: {len(failed)} refused, at most {peak:,.0f} MiB")
    assert done.returncode == 3
    assert is_clean(done.stderr), done.stderr
    assert sorted(answer["path"] for answer in answers) == sorted(map(str, paths))
    assert len(paths) > 8000
    assert failed.keys() == bombs
    assert len(bombs) == 3
    assert all(f"more than {MAX_PIXELS:,} pixels" in error for error in failed.values())
    assert peak < PROCESS_MIB + THREAD_MIB * len(os.sched_getaffinity(0))
