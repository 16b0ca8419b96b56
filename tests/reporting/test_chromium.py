"""The report in a headless Chromium: colours, sizes, sorting, no console error, no network."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
DARK = ("--blink-settings=preferredColorScheme=0",)
# Clicks on a heading, and sorts the matrix, as a reader does.
ACT = """
document.querySelectorAll("table.sortable thead button")[1].click();
const select = document.querySelector("select[data-matrix]");
select.value = "accuracy"; select.dispatchEvent(new Event("change"));
const loaded = performance.getEntriesByType("resource").map((each) => each.name);
document.body.dataset.requests = loaded.filter((name) => !name.startsWith("data:")).length;
document.body.dataset.wide = document.documentElement.scrollWidth - window.innerWidth;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_PLUGINS", "-tensorboard,-regression")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        from zoo.testing.fixtures import reset_caches

        reset_caches()
        run = zoo.finetune("lite0", out=folder / "run", device="cpu")
        reset_caches()
    return run.path / "report.html"


def chromium(path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [str(CHROMIUM), *FLAGS, *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize(("width", "dark"), [(1280, ()), (1280, DARK), (500, ()), (500, DARK)])
def test_report_is_drawn_light_and_dark(page, tmp_path, width, dark):
    shot = tmp_path / "shot.png"
    chromium(page, *dark, f"--window-size={width},2000", f"--screenshot={shot}")
    image = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"))
    assert (np.median(image) < 60) == bool(dark)
    assert image.std() > 5


@pytest.mark.parametrize("width", [1280, 500])
def test_report_sorts_without_error_or_network(page, tmp_path, width):
    acted = tmp_path / "acted.html"
    acted.write_text(page.read_text().replace("</script>", f"{ACT}</script>"))
    options = ("--dump-dom", "--enable-logging=stderr", "--v=0")
    result = chromium(acted, *options, f"--window-size={width},900")
    assert "CONSOLE" not in result.stderr
    dom = result.stdout
    assert 'data-requests="0"' in dom
    assert int(re.search(r'data-wide="(-?\d+)"', dom)[1]) <= 0
    table = dom[dom.index('class="sortable"') :].partition("</table>")[0]
    assert 'aria-sort="descending"' in table
    precisions = [float(p) for p in re.findall(r"</th><td[^>]*>([\d.]+) %", table)]
    assert len(precisions) == 10
    assert precisions == sorted(precisions, reverse=True)
    matrix = dom[dom.index('class="matrix"') :].partition("</table>")[0]
    recalls = [float(value) for value in re.findall(r'data-accuracy="([\d.]+)"', matrix)]
    assert recalls == sorted(recalls)
    # Columns are in the order of the rows.
    names = re.findall(r"<span>([^<]+)</span>", matrix)
    assert names[:10] == names[10:]
