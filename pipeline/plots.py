"""Three plots as SVG that follow the page's colours, so they are right in light and in dark.

Each carries a title and a description for screen readers; the numbers stand in a table beside it.
Axes begin at zero, end on a round number and say their unit.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 640, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 56, 34, 46
_FLOOR = _HEIGHT - _BOTTOM
_LABEL_WIDTH = 36
"""What a number below an axis takes, with a gap to the next."""


def bars(labels: Sequence[str], values: Sequence[int], title: str, x_label: str) -> Markup:
    """Draw a histogram of counts; `labels` name the bars."""
    top = _round_up(max(values, default=0))
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    shapes = [_left_axis(top, "clips")]
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        x, y, middle = _LEFT + i * step, _y(value, top), _LEFT + (i + 0.5) * step
        shapes.append(
            f'<rect class="bar" x="{x + 0.1 * step:.1f}" y="{y:.1f}" width="{0.8 * step:.1f}" '
            f'height="{_FLOOR - y:.1f}"><title>{escape(label)}: {value:g}</title></rect>'
            + _text(middle, y - 5, f"{value:g}", "middle")
            + _text(middle, _FLOOR + 16, label, "middle")
        )
    described = ", ".join(f"{a}: {b:g}" for a, b in zip(labels, values, strict=True))
    return _svg(title, described, x_label, shapes)


def trade_off(
    points: Sequence[tuple[float, float, float | None]], chosen: float, title: str
) -> Markup:
    """Draw what a threshold keeps and what that costs in quality: both, over the threshold.

    Args:
        points: threshold in %, hours kept, error rate of what is kept in %; None where unknown.
        chosen: the threshold in use, in %; marked with a dashed line.
        title: what it is of.

    Thresholds stand at their square roots: what there is to decide lies between 0 and 20 %.
    """
    right = math.sqrt(max((x for x, _, _ in points), default=0.0)) or 1.0
    hours = [(math.sqrt(x) / right, y) for x, y, _ in points]
    rates = [(math.sqrt(x) / right, y) for x, _, y in points if y is not None]
    top = _round_up(max((y for _, y in hours), default=0.0))
    top_rate = _round_up(max((y for _, y in rates), default=0.0))
    shapes = [_left_axis(top, "hours kept", "first"), _right_axis(top_rate, "error rate kept, %")]
    if (x := math.sqrt(chosen) / right) <= 1:
        shapes += [
            _line("guide", [(x, 0), (x, 1)], 1.0),
            _text(_x(x) + 5, _TOP + 12, f"chosen: {chosen:g} %", "start"),
        ]
    shapes += [_line("line second", rates, top_rate), _line("line", hours, top)]
    for shape, series, scale, unit in (
        ("dot second", rates, top_rate, "% error rate kept"),
        ("dot", hours, top, "h kept"),
    ):
        shapes += [
            _dot(shape, x, y, scale, f"threshold {(x * right) ** 2:.4g} %: {y:.4g} {unit}")
            for x, y in series
        ]
    shapes += _ticks([(math.sqrt(x) / right, f"{x:g}") for x, _, _ in points])
    described = ", ".join(
        f"{x:g} %: {y:g} hours" + ("" if rate is None else f", error rate {rate:.4g} %")
        for x, y, rate in points
    )
    return _svg(title, described, "threshold: highest error rate that is kept, %", shapes)


def calibration(points: Sequence[tuple[float, float]], title: str) -> Markup:
    """Draw observed over predicted shares; on the dashed diagonal a prediction is honest."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    shapes = [
        _left_axis(1.0, "share that the reference keeps"),
        _line("guide", [(0, 0), (1, 1)], 1.0),
        _line("line", points, 1.0),
        *(_dot("dot", x, y, 1.0, f"predicted {x:g}, observed {y:g}") for x, y in points),
        *_ticks([(q, f"{q:g}") for q in quarters]),
    ]
    described = ", ".join(f"predicted {x:g}, observed {y:g}" for x, y in points)
    return _svg(title, described, "predicted probability that the reference keeps a clip", shapes)


def _svg(title: str, description: str, x_label: str, shapes: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(shapes)}"
        f"{_text(_x(0.5), _HEIGHT - 8, x_label, 'middle')}</svg>"
    )


def _left_axis(top: float, unit: str, style: str = "") -> str:
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(v, top):.1f}" '
        f'y2="{_y(v, top):.1f}"/>' + _text(_LEFT - 6, _y(v, top) + 4, f"{v:g}", "end", style)
        for v in (0, top / 2, top)
    )
    return grid + _text(8, 14, unit, "start", style)


def _right_axis(top: float, unit: str) -> str:
    return "".join(
        _text(_WIDTH - _RIGHT + 6, _y(v, top) + 4, f"{v:g}", "start", "second")
        for v in (0, top / 2, top)
    ) + _text(_WIDTH - 8, 14, unit, "end", "second")


def _ticks(labels: Sequence[tuple[float, str]]) -> list[str]:
    """Write numbers below the axis, but for those that would touch the one before."""
    shapes, last = [], -math.inf
    for x, label in labels:
        if _x(x) - last >= _LABEL_WIDTH:
            last = _x(x)
            shapes.append(_text(last, _FLOOR + 16, label, "middle"))
    return shapes


def _line(style: str, points: Sequence[tuple[float, float]], top: float) -> str:
    places = " ".join(f"{_x(x):.1f},{_y(y, top):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{places}"/>'


def _dot(style: str, x: float, y: float, top: float, said: str) -> str:
    return (
        f'<circle class="{style}" cx="{_x(x):.1f}" cy="{_y(y, top):.1f}" r="4">'
        f"<title>{escape(said)}</title></circle>"
    )


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _x(share: float) -> float:
    """Place a share of the axis from 0 to 1."""
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _FLOOR - value / top * (_FLOOR - _TOP)


def _round_up(value: float) -> float:
    """Return the next round number, so that an axis ends on one and so does its half."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9))
