"""Drawings as SVG files, readable on white and on dark: seconds and memory as bars, memory against size as lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.q{fill:#57606a}.ours{fill:#1a7f5a;stroke:#1a7f5a}"
    ".peer{fill:#8c959f;stroke:#8c959f}.floor{fill:#c9d1d9;stroke:#c9d1d9}.axis{stroke:#8c959f;fill:none}"
    "line,path{stroke-width:2}path{fill:none}.card{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.q{fill:#9198a1}.card{fill:#0d1117}}"
)
WIDTH, ROW, LEFT, RIGHT = 760, 26, 170, 90


def bars(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], unit: str) -> str:
    """Groups of (name, role, value), one bar each, from nought."""
    shapes, y = [_text(12, 24, title)], 46
    for heading, rows in groups:
        shapes.append(_text(12, y, heading, kind="q"))
        y += 10
        most = max((value for _, _, value in rows), default=1) or 1
        for name, role, value in rows:
            long = (WIDTH - LEFT - RIGHT) * value / most
            shapes.append(_text(LEFT - 8, y + 15, name, anchor="end"))
            shapes.append(
                f'<rect class="{role}" x="{LEFT}" y="{y + 3}" width="{long:.1f}" height="{ROW - 10}" rx="2"/>'
            )
            shapes.append(_text(LEFT + long + 8, y + 15, f"{_short(value)} {unit}"))
            y += ROW
        y += 22
    return _svg(y - 6, title, shapes)


def lines(title: str, series: Mapping[str, tuple[str, Sequence[tuple[float, float]]]], x_name: str, unit: str) -> str:
    """Series of (size, value), both axes in powers of ten, the largest value first in the legend."""
    points = [point for _, of in series.values() for point in of]
    low_x, high_x = _decades(x for x, _ in points)
    low_y, high_y = _decades(y for _, y in points)
    top, height = 46, 240

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return 80 + across * (WIDTH - 80 - RIGHT - 80), top + (1 - up) * height

    shapes = [_text(12, 24, title)]
    for power in range(low_y, high_y + 1):
        _, y = place(10**low_x, 10**power)
        shapes.append(f'<line class="axis" style="opacity:.35" x1="80" x2="{WIDTH - 170}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shapes.append(_text(72, y + 4, f"{_short(10**power)} {unit}", anchor="end", kind="q"))
    for power in range(low_x, high_x + 1):
        x, _ = place(10**power, 10**low_y)
        shapes.append(_text(x, top + height + 20, _short(10**power), anchor="middle", kind="q"))
    shapes.append(_text(80, top + height + 40, x_name, kind="q"))
    last = -99.0
    for name, (role, of) in sorted(series.items(), key=lambda item: -item[1][1][-1][1]):
        path = " ".join(
            f"{'L' if i else 'M'}{place(*point)[0]:.1f} {place(*point)[1]:.1f}" for i, point in enumerate(of)
        )
        dots = "".join(f'<circle class="{role}" r="3.5" cx="{place(*p)[0]:.1f}" cy="{place(*p)[1]:.1f}"/>' for p in of)
        shapes.append(f'<path class="{role}" style="fill:none" d="{path}"/>{dots}')
        x, y = place(*of[-1])
        last = max(y + 4, last + 16)
        shapes.append(_text(x + 10, last, f"{name}: {_short(of[-1][1])} {unit}"))
    return _svg(top + height + 54, title, shapes)


def _decades(values: Iterable[float]) -> tuple[int, int]:
    found = [value for value in values if value > 0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    return low, max(high, low + 1)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}" if size > 1e3 or value >= 1e4 else f"{value:,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, title: str, shapes: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
    card = f'<rect class="card" width="{WIDTH}" height="{height:.0f}" rx="6"/>'
    return f'{head} aria-label="{escape(title)}"><style>{STYLE}</style>{card}\n' + "\n".join(shapes) + "\n</svg>\n"
