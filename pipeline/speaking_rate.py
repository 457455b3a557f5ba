"""How many characters per second people can say, by language.

The bounds known of a language are wide and meant to catch what nobody can say. Bounds of the ledger
are taken around the median of each language, with the median absolute deviation as the measure of
spread, so that the very labels they shall catch do not move them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.languages import language_code

_MIN_ROWS = 100
_DEVIATIONS = 4.0  # of the logarithm; about 1 good clip in 10 000 lies outside
_MIN_SPREAD = 0.1
_SIGMA = 1.4826  # standard deviations per median absolute deviation of a normal distribution


@dataclass(frozen=True, kw_only=True)
class RateBounds:
    """Characters per second, spaces included, that are believed."""

    lowest: float
    highest: float


_ALPHABETIC = RateBounds(lowest=1.0, highest=35.0)
_KNOWN = {
    "en": RateBounds(lowest=1.0, highest=30.0),  # people read about 15, Curator allows 40
    "zh": RateBounds(lowest=0.3, highest=12.0),
    "yue": RateBounds(lowest=0.3, highest=12.0),
    "ja": RateBounds(lowest=0.3, highest=18.0),
    "ko": RateBounds(lowest=0.5, highest=18.0),
}


def known_bounds(language: str) -> RateBounds:
    """Return the wide bounds that hold for every speaker of a language."""
    return _KNOWN.get(language_code(language), _ALPHABETIC)


def characters_per_second(label: str, duration_seconds: float) -> float:
    """Return the speaking rate of a label; 0 for no time."""
    return len(label.strip()) / duration_seconds if duration_seconds > 0 else 0.0


def ledger_bounds(rates: Iterable[tuple[str, float]]) -> Mapping[str, RateBounds]:
    """Return bounds for each language that has enough rows, from (language, rate) pairs.

    They never leave the bounds known of the language.
    """
    by_language: dict[str, list[float]] = {}
    for language, rate in rates:
        if rate > 0:
            by_language.setdefault(language, []).append(rate)
    bounds = {}
    for language, values in by_language.items():
        if len(values) < _MIN_ROWS:
            continue
        logarithms = np.log(values)
        middle = np.median(logarithms)
        spread = max(float(np.median(np.abs(logarithms - middle))) * _SIGMA, _MIN_SPREAD)
        known = known_bounds(language)
        bounds[language] = RateBounds(
            lowest=max(float(np.exp(middle - _DEVIATIONS * spread)), known.lowest),
            highest=min(float(np.exp(middle + _DEVIATIONS * spread)), known.highest),
        )
    return bounds
