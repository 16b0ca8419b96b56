"""Draw a report in Chromium, for the images of the README and the tutorial.

    zoo finetune lite0 --out run
    uv run python -m tools.report_image run/report.html docs/report.png --height 1880 \\
        --sections results classes-val what-to-try-next where-the-network-looks

The tutorial's is drawn from its own training, without further options.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

# A window as wide as a screen, drawn as wide as a page of text.
WINDOW, DRAWN = 1280, 960


def draw(report: Path, image: Path, height: int, sections: list[str]) -> None:
    """Write a PNG of the top of a report.

    Args:
        report: its HTML.
        image: the PNG to write.
        height: of the window.
        sections: anchors of those to show; all if empty.

    Raises:
        SystemExit: there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("install chromium")
    shown = ", ".join(f"[aria-labelledby={name}]" for name in sections)
    style = f"<style>section:not({shown}) {{ display: none }}</style>" if sections else ""
    with TemporaryDirectory() as folder:
        page, drawn = Path(folder, "page.html"), Path(folder, "drawn.png")
        page.write_text(report.read_text().replace("</head>", f"{style}</head>"))
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        window = (f"--window-size={WINDOW},{height}", f"--screenshot={drawn}")
        subprocess.run([chromium, *flags, *window, page.as_uri()], check=True, capture_output=True)
        with Image.open(drawn) as full:
            small = full.convert("RGB").resize((DRAWN, height * DRAWN // WINDOW))
            small.quantize(256, kmeans=1).save(image, optimize=True)


def main() -> None:
    """Draw the report that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--height", type=int, default=1010, help="of the window, in pixels")
    parser.add_argument("--sections", nargs="*", default=[])
    given = parser.parse_args()
    draw(given.report, given.image, given.height, given.sections)


if __name__ == "__main__":
    main()
