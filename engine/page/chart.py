"""Drawings as inline SVG: bars, lines, shares. Shapes only; whatever is to be read stands beside them as text.

Drawings stretch with the page; strokes do not (``vector-effect``). Colours are classes of the page's style.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.page.html import Markup, el

SERIES = 8  # colours that a drawing's parts take turns in


def _drawing(width: float, height: float, label: str | None, *shapes: Markup, class_: str) -> Markup:
    seen = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    box = f"0 0 {_n(width)} {_n(height)}"
    return el("svg", *shapes, viewBox=box, preserveAspectRatio="none", focusable="false", class_=class_, **seen)


def twin(baseline: float, current: float, most: float) -> Markup:
    """Two bars over one another, of shares up to ``most``."""
    scale = 100 / most if most > 0 else 0
    return _drawing(
        100,
        18,
        None,
        _bar(0, 1, min(100, baseline * scale), 7, "base"),
        _bar(0, 10, min(100, current * scale), 7, "now"),
        class_="twin",
    )


def parts(shares: Sequence[float], classes: Sequence[str], label: str) -> Markup:
    """A bar divided in the ratio of ``shares``."""
    total, x, shapes = sum(shares), 0.0, []
    for share, kind in zip(shares, classes, strict=True):
        width = 1000 * share / total if total else 0
        shapes.append(_bar(x, 0, width, 12, kind))
        x += width
    return _drawing(1000, 12, label, *shapes, class_="parts")


def spans(of: Sequence[Sequence[float]], end: float, kind: str) -> Markup:
    """A bar for each (begun, ended), between nought and ``end``."""
    scale = 1000 / end if end > 0 else 0
    shapes = [_bar(begun * scale, 0, max(2, (ended - begun) * scale), 12, kind) for begun, ended in of]
    return _drawing(1000, 12, None, *shapes, class_="parts")


def histogram(counts: Sequence[float], label: str) -> Markup:
    """Bars side by side."""
    most = max(counts, default=0) or 1
    path = "".join(f"M{10 * i} 20v-{_n(20 * count / most)}h9V20z" for i, count in enumerate(counts) if count)
    return _drawing(10 * max(1, len(counts)), 20, label, el("path", d=path or "M0 0", class_="now"), class_="spark")


def trend(values: Sequence[float | None], label: str, titles: Sequence[str] = ()) -> Markup:
    """A line through what was measured run by run; a gap where nothing was. The last point is marked."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low < high:
        low = 0.0 if 0 <= low <= high / 2 else low  # from nought, unless that would flatten what there is to see
    if low == high:
        low, high = low - 1, high + 1  # in the middle
    span = (high - low) or 1.0  # nought for what a float cannot tell from its neighbours
    step = 200 / max(1, len(values) - 1)
    points = [
        None if value is None else (step * i if len(values) > 1 else 100.0, 44 - 40 * (value - low) / span)
        for i, value in enumerate(values)
    ]
    path, dots = "", []
    for i, point in enumerate(points):
        if point is None:
            continue
        x, y = point
        path += f"{'L' if i and points[i - 1] else 'M'}{_n(x)} {_n(y)}"
        last = all(later is None for later in points[i + 1 :])
        alone = not (i and points[i - 1]) and (i + 1 == len(points) or points[i + 1] is None)
        title = el("title", titles[i]) if i < len(titles) else None
        if last or alone or title:
            kind = "dot last" if last else "dot" if alone else "dot faint"
            dots.append(el("path", title, d=f"M{_n(x)} {_n(y)}h0", class_=kind, vector_effect="non-scaling-stroke"))
    line = el("path", d=path or "M0 0", class_="line", fill="none", vector_effect="non-scaling-stroke")
    return _drawing(200, 48, label, line, *dots, class_="trend")


def columns(stacks: Sequence[Sequence[float]], classes: Sequence[str], label: str) -> Markup:
    """A stack of bars per run."""
    most = max((sum(stack) for stack in stacks), default=0) or 1
    width, shapes = 200 / max(12, len(stacks)), []
    for i, stack in enumerate(stacks):
        y = 46.0
        for value, kind in zip(stack, classes, strict=True):
            height = 44 * value / most
            y -= height
            if value:
                shapes.append(_bar(width * i + width * 0.1, y, width * 0.8, height, kind))
        if not sum(stack):
            shapes.append(_bar(width * i + width * 0.1, 45, width * 0.8, 1, "none"))
    return _drawing(200, 48, label, *shapes, class_="trend")


def _bar(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return el("rect", x=_n(x), y=_n(y), width=_n(width), height=_n(height), class_=kind)


def _n(value: float) -> str:
    """A coordinate, in as few digits as it takes."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
