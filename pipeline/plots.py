"""Two plots as SVG that follow the page's colours, so they are right in light and in dark.

Each carries a title and a description for screen readers; the numbers stand in a table beside it.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 44


def bars(labels: Sequence[str], values: Sequence[float], title: str, x_label: str) -> Markup:
    """Draw a histogram; `labels` name the bars."""
    top = _round_up(max(values, default=0.0))
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    shapes = []
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        x, y = _LEFT + i * step, _y(value, top)
        shapes.append(
            f'<rect class="bar" x="{x + 0.1 * step:.1f}" y="{y:.1f}" width="{0.8 * step:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}"><title>{escape(label)}: {value:g}</title></rect>'
            f'<text x="{x + step / 2:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{escape(label)}</text>"
        )
    described = ", ".join(f"{a}: {b:g}" for a, b in zip(labels, values, strict=True))
    return _svg(title, described, x_label, top, "".join(shapes))


def curve(
    points: Sequence[tuple[float, float]],
    title: str,
    x_label: str,
    marked: float | None = None,
    diagonal: bool = False,
) -> Markup:
    """Draw (x, y) points joined by a line; `marked` is the x of a dashed vertical line."""
    top = 1.0 if diagonal else _round_up(max((y for _, y in points), default=0.0))
    right = 1.0 if diagonal else max((x for x, _ in points), default=0.0) or 1.0

    def place(x: float, y: float) -> str:
        return f"{_LEFT + x / right * (_WIDTH - _LEFT - _RIGHT):.1f},{_y(y, top):.1f}"

    shapes = [f'<polyline class="line" points="{" ".join(place(*p) for p in points)}"/>']
    if diagonal:
        shapes.append(f'<polyline class="guide" points="{place(0, 0)} {place(1, 1)}"/>')
    if marked is not None and marked <= right:
        shapes.append(f'<polyline class="guide" points="{place(marked, 0)} {place(marked, top)}"/>')
    last = -math.inf
    for x, y in points:
        at_x, at_y = place(x, y).split(",")
        shapes.append(
            f'<circle class="dot" cx="{at_x}" cy="{at_y}" r="3.5"><title>{x:g}: {y:g}</title>'
            "</circle>"
        )
        if float(at_x) - last >= 34:  # the width of a label
            last = float(at_x)
            shapes.append(
                f'<text x="{at_x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
                f"{round(x, 2):g}</text>"
            )
    described = ", ".join(f"{x:g}: {y:g}" for x, y in points)
    return _svg(title, described, x_label, top, "".join(shapes))


def _svg(title: str, description: str, x_label: str, top: float, shapes: str) -> Markup:
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(v, top):.1f}" '
        f'y2="{_y(v, top):.1f}"/><text x="{_LEFT - 6}" y="{_y(v, top) + 4:.1f}" '
        f'text-anchor="end">{v:g}</text>'
        for v in (0, top / 2, top)
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{grid}{shapes}"
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text></svg>"
    )


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten, so that the axis ends on a round number."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
