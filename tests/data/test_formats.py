"""Formats that plugins of Pillow add."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile

import zoo
from tests.tasks.segmentation.scenes import SHAPES, write_scenes
from zoo.data.all_images import open_all
from zoo.data.decode import UnreadableImage, decode
from zoo.data.find import find_images
from zoo.data.formats import FORMATS, PLUGINS, is_image, missing_plugin, readable_formats

QUICK = {"weights": "none", "batch_size": 4, "epochs": 1, "lr": 0.05, "optimizer": "adamw"}
JXL = b"\xff\x0a" + bytes(range(60))


def gradient(number: int = 0) -> Image.Image:
    across = np.linspace(0, 200, 64) + number
    values = np.stack([np.tile(across, (48, 1)), np.full((48, 64), 90), np.full((48, 64), 30)], -1)
    return Image.fromarray(values.astype(np.uint8))


def save_heic(image: Image.Image, path: Path, **options) -> None:
    pillow_heif.from_pillow(image).save(path, quality=90, **options)


def test_heic_is_decoded(tmp_path):
    path = tmp_path / "photo.HEIC"
    save_heic(gradient(), path)
    assert is_image(path.name)
    assert "HEIF" in readable_formats()
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        decoded = np.asarray(decode(source)).astype(int)
        assert decoded.shape == (48, 64, 3)
        assert np.abs(decoded - np.asarray(gradient())).mean() < 4
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImage, match=r"photo\.HEIC"):
        decode(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [*FORMATS, "HEIF"])
def test_file_of_few_bytes_is_unreadable(kind):
    """Pillow's functions that recognize a format raise for less than a signature."""
    encoded = io.BytesIO()
    readable_formats()
    gradient().save(encoded, kind)
    for size in range(21):
        with pytest.raises(UnreadableImage, match=r"a\.jpg: (the file is empty|damaged|not an|tr)"):
            decode_named(encoded.getvalue()[:size])
    assert decode_named(encoded.getvalue()).size == (64, 48)


def decode_named(content: bytes) -> Image.Image:
    file = io.BytesIO(content)
    file.name = "a.jpg"
    return decode(file)


def test_heic_orientation_is_applied_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.heic"
    save_heic(gradient(), path, exif=exif.tobytes())
    decoded = decode(path)
    assert decoded.size == (48, 64)
    assert decode(decoded).size == (48, 64)


def test_class_of_heic_only_is_trained_on(tinynet, tmp_path, cli):
    root = tmp_path / "photos"
    for name in ("phone", "camera"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            image = gradient(5 * number)
            if name == "phone":
                save_heic(image, root / name / f"{number}.heic")
            else:
                image.transpose(Image.Transpose.ROTATE_90).save(root / name / f"{number}.jpg")
    run = zoo.finetune(tinynet, data=root, recipe="head", **QUICK)
    assert run.record["plan"]["data"]["images"] == {"train": 10, "val": 2}
    answer = zoo.load(run.path).predict(root / "phone/0.heic")[0]
    assert "predictions" in answer
    code, out, _ = cli("check", root)
    assert (code, "HEIF RGB (6)" in out) == (0, True)


def test_missing_package_is_named(tmp_path, cli, tinynet):
    """Of the packages in PLUGINS, the tests install the one for HEIC only."""
    assert missing_plugin(".heic") is None
    assert missing_plugin(".JXL").package == "pillow-jxl-plugin"
    root = tmp_path / "photos"
    for name in ("phone", "camera"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            gradient(number).save(root / name / f"{number}.jpg")
    (root / "phone/1.jxl").write_bytes(JXL)
    code, _, err = cli("finetune", tinynet, "--data", root, "--weights", "none", "--dry-run")
    assert code == 0
    assert ".jxl (1); to read .jxl, `pip install pillow-jxl-plugin`" in err
    (root / "scans").mkdir()
    (root / "scans/1.jxl").write_bytes(JXL)
    code, _, err = cli("finetune", tinynet, "--data", root, "--weights", "none", "--dry-run")
    assert code == 3
    assert "class folders without images: scans; to read .jxl, `pip install" in err
    with pytest.raises(UnreadableImage, match=r"1\.jxl: to read \.jxl, `pip install pillow-jxl-pl"):
        decode(root / "scans/1.jxl")
    (first,) = find_images([str(root / "scans")])
    assert first == str(root / "scans/1.jxl")
    with pytest.raises(zoo.DataError, match="pip install pillow-jxl-plugin"):
        open_all(root / "scans", lambda source: None)


def test_missing_package_of_image_with_mask_is_named(tmp_path, cli):
    root = write_scenes(tmp_path / "scenes", 4, seed=1)
    (root / "classes.txt").write_text("\n".join(SHAPES))
    image = sorted((root / "images").iterdir())[0]
    image.rename(image.with_suffix(".jxl"))
    image.with_suffix(".jxl").write_bytes(JXL)
    code, _, err = cli("check", root)
    assert code == 3
    assert (
        f"{image.with_suffix('.jxl')}: to read .jxl content, `pip install pillow-jxl-plugin`" in err
    )


def test_images_are_read_without_any_plugin(tmp_path):
    """Without pillow-heif, HEIC is no image, and its error names the package."""
    save_heic(gradient(), tmp_path / "a.heic")
    gradient().save(tmp_path / "a.png")
    program = f"""
import sys
sys.modules["pillow_heif"] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pillow_heif" else real(name, *rest)
from pathlib import Path
from zoo.data.all_images import open_all
from zoo.data.decode import decode, UnreadableImage
from zoo.data.formats import is_image
folder = Path({str(tmp_path)!r})
assert decode(folder / "a.png").size == (64, 48)
assert not is_image("a.heic")
try:
    decode(folder / "a.heic")
except UnreadableImage as error:
    print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "to read .heic, `pip install pillow-heif`", done.stderr


def test_package_that_fails_to_import_is_warned_of(tmp_path):
    (tmp_path / "pillow_jxl.py").write_text("raise ImportError('built for another Pillow')\n")
    (tmp_path / "a.jxl").write_bytes(JXL)
    program = """
import sys
from zoo.data.decode import decode, UnreadableImage
try:
    decode(sys.argv[1])
except UnreadableImage as error:
    print(error.reason)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program, str(tmp_path / "a.jxl")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "to read .jxl, `pip install pillow-jxl-plugin`", done.stderr
    assert "pillow-jxl-plugin cannot be imported: ImportError: built for another" in done.stderr
    assert done.stderr.strip().endswith("`pip install --upgrade pillow pillow-jxl-plugin`")


class Grid(ImageFile.ImageFile):
    """Reads a made-up format: `GRID`, width and height, then grey values."""

    format = "GRID"

    def _open(self):
        header = self.fp.read(6)
        self._size = header[4], header[5]
        self._mode = "L"
        self.tile = [ImageFile._Tile("raw", (0, 0, *self._size), 6, "L")]


def test_format_registered_by_others_is_read(tmp_path):
    Image.register_open("GRID", Grid, lambda prefix: prefix.startswith(b"GRID"))
    Image.register_extension("GRID", ".grid")
    try:
        path = tmp_path / "a.grid"
        path.write_bytes(b"GRID\x02\x01\x00\xff")
        assert is_image("a.grid")
        assert np.asarray(decode(path))[..., 0].tolist() == [[0, 255]]
    finally:
        del Image.OPEN["GRID"], Image.EXTENSION[".grid"]
        Image.ID.remove("GRID")
    assert not is_image("a.grid")


def test_formats_of_pillow_itself_are_an_allow_list():
    assert not {"EPS", "PSD", "WMF", "FITS"} & set(readable_formats())
    assert {each.package for each in PLUGINS} >= {"pillow-heif", "pillow-jxl-plugin"}
