"""Reports in a headless Chromium: colours, sizes, print, sorting, no console error, no network."""

import io
import json
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
# Adds what a browser measures to the page: requests, width, and the least contrast of a text
# (WCAG 2.2) with its text. Then it clicks on headings, and sorts the matrix, as a reader does.
ACT = """
const loaded = performance.getEntriesByType("resource").map((each) => each.name);
const seen = {
  requests: loaded.filter((name) => !name.startsWith("data:")).length,
  wide: document.documentElement.scrollWidth - window.innerWidth, contrast: 99,
};
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function pixel(color) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function background(element) {
  for (let each = element; each; each = each.parentElement) {
    const color = pixel(getComputedStyle(each).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
}
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim(), element = walk.currentNode.parentElement;
  if (!text || !element.getClientRects().length) continue;
  const style = getComputedStyle(element), svg = element.closest("svg");
  const pair = [pixel(svg ? style.fill : style.color), background(element)];
  const [high, low] = pair.map((c) => luminance(c.slice(0, 3))).sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < seen.contrast) [seen.contrast, seen.text] = [ratio, text];
}
seen.paper = luminance(pixel(getComputedStyle(document.body).backgroundColor).slice(0, 3));
seen.nav = document.querySelector("nav").getClientRects().length;
seen.heading = getComputedStyle(document.querySelector("thead th"), "::before").content;
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("thead button")[1].click();
for (const select of document.querySelectorAll("select[data-matrix]")) {
  select.value = "accuracy"; select.dispatchEvent(new Event("change"));
}
document.body.dataset.seen = JSON.stringify(seen);
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The report of a training, and the comparison of it and another."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        from zoo.testing.fixtures import reset_caches

        reset_caches()
        run = zoo.finetune("lite0", out=folder / "run", device="cpu")
        options = {"epochs": 3, "lr": 0.01, "optimizer": "sgd", "train": "head", "device": "cpu"}
        epochs = zoo.finetune("lite0", out=folder / "epochs", **options)
        compared = zoo.report([run, epochs], out=folder / "comparison.html")
        reset_caches()
    return {"report": run.path / "report.html", "comparison": compared}


def chromium(path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [str(CHROMIUM), *FLAGS, *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def act(text: str, folder: Path, *options: str) -> tuple[dict, str]:
    """Return what `ACT` measures of a page, and the page after its clicks."""
    acted = folder / "acted.html"
    acted.write_text(text.replace("</script>", f"{ACT}</script>"))
    result = chromium(acted, "--dump-dom", "--enable-logging=stderr", "--v=0", *options)
    assert "CONSOLE" not in result.stderr
    # The attribute is the page's last in its escaped form.
    seen = re.search(r'data-seen="([^"]*)"', result.stdout)[1].replace("&quot;", '"')
    return json.loads(seen.replace("&amp;", "&")), result.stdout


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, ()), (500, DARK)])
def test_page_is_drawn_light_and_dark(pages, tmp_path, name, width, scheme):
    shot = tmp_path / "shot.png"
    chromium(pages[name], *scheme, f"--window-size={width},2000", f"--screenshot={shot}")
    image = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"))
    assert (np.median(image) < 60) == bool(scheme)
    assert image.std() > 5


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, DARK), (500, ())])
def test_page_sorts_without_error_or_network(pages, tmp_path, name, width, scheme):
    seen, dom = act(pages[name].read_text(), tmp_path, f"--window-size={width},900", *scheme)
    assert seen["requests"] == 0
    assert seen["wide"] <= 0
    assert seen["nav"] == 1
    assert seen["contrast"] >= 4.5, seen["text"]
    assert (seen["paper"] < 0.1) == bool(scheme)
    tables = re.findall(r'class="sortable".*?</table>', dom, re.DOTALL)
    assert tables
    sorted_ones = [re.search(r'aria-sort="(\w+)"', table)[1] for table in tables]
    assert sorted_ones[0] == "descending"
    head, _, body = tables[0].partition("<tbody>")
    assert re.search(r'class="right"[^>]*aria-sort', head)
    numbers = [float(n) for n in re.findall(r"</th><td[^>]*>([\d.]+)(?:&nbsp;|\xa0)%", body)]
    assert len(numbers) == {"report": 10, "comparison": 2}[name]
    assert numbers == sorted(numbers, reverse=True)


def test_matrix_sorts_rows_and_columns_alike(pages, tmp_path):
    _, dom = act(pages["report"].read_text(), tmp_path)
    matrix = dom[dom.index('class="matrix"') :].partition("</table>")[0]
    recalls = [float(value) for value in re.findall(r'data-accuracy="([\d.]+)"', matrix)]
    assert recalls == sorted(recalls)
    # Columns are in the order of the rows.
    names = re.findall(r"<span>([^<]+)</span>", matrix)
    assert names[:10] == names[10:]


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_page_prints_light_without_navigation(pages, tmp_path, name):
    pdf = tmp_path / "page.pdf"
    chromium(pages[name], f"--print-to-pdf={pdf}", *DARK)
    printed = len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))
    assert printed <= {"report": 15, "comparison": 4}[name]
    # The same rules on a screen as wide as paper, where what they compute to can be read.
    on_screen = pages[name].read_text().replace("@media print", "@media all")
    seen, _ = act(on_screen, tmp_path, "--window-size=700,1000", *DARK)
    assert seen["paper"] == 1
    assert seen["nav"] == 0
    # Chromium repeats a heading on the next page, but no button in it.
    assert seen["heading"] == {"report": '"Class"', "comparison": '"Run"'}[name]
    assert seen["contrast"] >= 4.5, seen["text"]
    assert seen["wide"] <= 0
