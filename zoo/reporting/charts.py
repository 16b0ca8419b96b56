"""Charts as SVG, coloured by the classes of the page's style, with text alternatives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

from zoo.sections import BarChart, IntervalChart, LineChart, Reliability

# Size of a chart with axes, in units of the view box; its width on the page follows the window.
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
ROW = 26
MAX_NAME = 26


Chart: TypeAlias = LineChart | BarChart | IntervalChart | Reliability


def draw(chart: Chart, anchor: str) -> str:
    """Return a chart as an SVG element.

    Args:
        chart: to draw.
        anchor: unique in the page, for the ids of title and description.
    """
    if isinstance(chart, LineChart):
        return _lines(chart, anchor)
    if isinstance(chart, BarChart):
        return _bars(chart, anchor)
    if isinstance(chart, IntervalChart):
        return _intervals(chart, anchor)
    return _reliability(chart, anchor)


def _svg(
    anchor: str, title: str, description: str, body: Iterable[str], height: float = HEIGHT
) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-labelledby="{anchor}-title {anchor}-text">'
        f'<title id="{anchor}-title">{escape(title)}</title>'
        f'<desc id="{anchor}-text">{escape(description)}</desc>{"".join(body)}</svg>'
    )


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.4g} %"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _text(x: float, y: float, text: str, kind: str = "", turn: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{turn}>{escape(text)}</text>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that cover a range, about `count` of them."""
    span = high - low or abs(high) or 1.0
    rough = span / max(count - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


class _Axes:
    """The axes of a chart, and the mapping of values to them."""

    def __init__(
        self, xs: Sequence[float], ys: Sequence[float], percent: bool, log: bool, whole: bool
    ) -> None:
        self.log, self.percent = log, percent
        marks = sorted(set(xs)) if log else ticks(min(xs), max(xs))
        if whole:
            marks = sorted({float(round(mark)) for mark in marks if min(xs) <= mark <= max(xs)})
            marks = marks or [min(xs)]
        self.x_ticks, self.y_ticks = marks, ticks(min(ys), max(ys))
        self.low, self.high = min(*xs, *marks), max(*xs, *marks)
        self.bottom, self.top = self.y_ticks[0], self.y_ticks[-1]
        if self.bottom == self.top:
            self.top = self.bottom + 1

    def x(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = 0.5 if low == high else (value - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def draw(self, x_name: str, y_name: str) -> Iterable[str]:
        for value in self.y_ticks:
            y = self.y(value)
            yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>'
            yield _text(LEFT - 8, y + 4, _number(value, self.percent), "end")
        free = -math.inf
        for value in self.x_ticks:
            x = self.x(value)
            if x - free >= 34:
                yield _text(x, HEIGHT - BOTTOM + 18, _number(value, False), "middle")
                free = x
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name, "middle axis")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        yield _text(13, middle, y_name, "middle axis", f' transform="rotate(-90 13 {middle:.1f})"')


def _lines(chart: LineChart, anchor: str) -> str:
    points = [point for series in chart.series for point in series.points]
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    whole = all(x == round(x) for x in xs)
    axes = _Axes(xs, ys, chart.percent, chart.log, whole)
    body, last = list(axes.draw(chart.x, chart.y)), []
    for number, series in enumerate(chart.series):
        line = [(axes.x(x), axes.y(y)) for x, y in series.points if math.isfinite(y)]
        if not line:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        dashed = " dashed" if series.dashed else ""
        body.append(f'<polyline points="{path}" class="line s{number % 4}{dashed}"/>')
        dots = line if len(line) <= 30 and not series.dashed else line[-1:]
        body += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="s{number % 4}"/>' for x, y in dots
        ]
        x, y = next(p for p in reversed(series.points) if math.isfinite(p[1]))
        value = _number(float(f"{y:.4g}"), chart.percent)
        last.append(f"{series.name}: {value} at {_number(x, False)}")
    return _svg(anchor, chart.title, f"{chart.title}. Last values: {'; '.join(last)}.", body)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _bars(chart: BarChart, anchor: str) -> str:
    groups = len(chart.groups)
    most = max((sum(values) for _, values in chart.bars), default=0) or 1
    longest = max((len(_short(name)) for name, _ in chart.bars), default=0)
    left, right = 12 + 6.6 * longest, 56
    scale, body, texts = (WIDTH - left - right) / most, [], []
    for row, (name, values) in enumerate(chart.bars):
        y, x = row * ROW + 4, left
        body.append(_text(left - 8, y + 14, _short(name), "end name"))
        for number, value in enumerate(values):
            width = value * scale
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" '
                f'class="s{number % 4}"/>'
            )
            x += width
        shown = _number(sum(values), chart.percent)
        body.append(_text(x + 6, y + 14, shown))
        pairs = zip(chart.groups, values, strict=True)
        each = ", ".join(f"{group} {_number(value, chart.percent)}" for group, value in pairs)
        texts.append(f"{name}: {each if groups > 1 else shown}")
    height = len(chart.bars) * ROW + 4
    return _svg(anchor, chart.title, f"{chart.title}. {'; '.join(texts)}.", body, height)


def _intervals(chart: IntervalChart, anchor: str) -> str:
    longest = max((len(_short(name)) for name, *_ in chart.rows), default=0)
    left, right = 12 + 6.6 * longest, 24
    marks = ticks(min(row[2] for row in chart.rows), max(row[3] for row in chart.rows))
    scale = (WIDTH - left - right) / (marks[-1] - marks[0])
    bottom, body, texts = len(chart.rows) * ROW + 4, [], []
    for mark in marks:
        x = left + (mark - marks[0]) * scale
        body.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        body.append(_text(x, bottom + 18, _number(mark, chart.percent), "middle"))
    for row, (name, *values) in enumerate(chart.rows):
        y = row * ROW + ROW / 2 + 2
        x, low, high = (left + (value - marks[0]) * scale for value in values)
        body.append(_text(left - 8, y + 4, _short(name), "end name"))
        body.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" class="interval"/>')
        body.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" class="s0"/>')
        value, lower, upper = (_number(float(f"{v:.3g}"), chart.percent) for v in values)
        texts.append(f"{name}: {value}, {lower} to {upper}")
    return _svg(anchor, chart.title, f"{chart.title}. {'; '.join(texts)}.", body, bottom + 26)


def _reliability(chart: Reliability, anchor: str) -> str:
    axes = _Axes([0.0, 1.0], [0.0, 1.0], True, False, False)
    axes.x_ticks = []
    body = list(axes.draw("confidence", "accuracy"))
    for mark in (0, 0.2, 0.4, 0.6, 0.8, 1):
        body.append(_text(axes.x(mark), HEIGHT - BOTTOM + 18, _number(mark, True), "middle"))
    most = max((size for *_, size in chart.bins), default=1)
    texts = []
    for confidence, share, size in chart.bins:
        middle, y = axes.x(confidence), axes.y(share)
        radius = 3 + 9 * math.sqrt(size / most)
        body.append(
            f'<line x1="{middle:.1f}" y1="{axes.y(confidence):.1f}" x2="{middle:.1f}" '
            f'y2="{y:.1f}" class="gap"/>'
        )
        body.append(f'<circle cx="{middle:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="s0 bubble"/>')
        texts.append(
            f"{size} images of confidence {_number(confidence, True)}: {_number(share, True)}"
        )
    line = f'x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" x2="{axes.x(1):.1f}" y2="{axes.y(1):.1f}"'
    body.append(f'<line {line} class="ideal"/>')
    return _svg(anchor, chart.title, f"{chart.title}. {'; '.join(texts)}.", body)
