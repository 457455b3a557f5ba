"""Error rates of students with several seeds, and intervals of what differs between them.

Resampling draws seeds and speakers (or clips) together, and the same ones for every student: an
interval says what other trainings on other people would give, and that of a difference is paired.
Few seeds are still few: three say little about how far trainings scatter.
"""

# Counts are (seeds, clips, 4): word errors, words, character errors, characters.

from dataclasses import dataclass

import numpy as np

WER, CER = 0, 2
"""Where the errors of a rate stand in the counts; the lengths stand behind them."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two students differ; below 0 the first has fewer errors."""

    value: float
    low: float
    high: float
    """95 % interval."""
    relative: float
    """The difference over the rate of the one that the other is held against."""
    relative_low: float
    relative_high: float

    @property
    def verdict(self) -> str:
        """What the interval allows to be said."""
        if self.low > 0:
            return "more errors"
        return "fewer errors" if self.high < 0 else "no difference shown"


def rates(counts: np.ndarray, kind: int = WER) -> np.ndarray:
    """Return the error rate of each seed."""
    errors, lengths = counts[:, :, kind : kind + 2].sum(axis=1).T
    return errors / np.maximum(lengths, 1)


def resampled(
    counts: dict[str, np.ndarray], speakers: np.ndarray, num_samples: int, kind: int = WER
) -> dict[str, np.ndarray]:
    """Draw seeds and speakers again and again; return the mean rates, the same draws for all.

    `speakers` numbers those of the clips; a number for each clip draws clips.
    """
    num_speakers = int(speakers.max()) + 1
    by_speaker = {}
    for name, values in counts.items():
        people = [values[:, speakers == person].sum(axis=1) for person in range(num_speakers)]
        by_speaker[name] = np.stack(people, axis=1)
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {name: [] for name in counts}
    most = max(len(values) for values in counts.values())
    for _ in range(num_samples):
        people = rng.integers(num_speakers, size=num_speakers)
        position = rng.random(most)
        for name, sums in by_speaker.items():
            # the same numbers for arms of as many seeds, so that their differences are paired
            seeds = (position[: len(sums)] * len(sums)).astype(int)
            draws[name].append(float(rates(sums[seeds][:, people], kind).mean()))
    return {name: np.array(values) for name, values in draws.items()}


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 %."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def difference(
    rate: float, draws: np.ndarray, other_rate: float, other_draws: np.ndarray
) -> Difference:
    """Compare two students by their mean rates and their draws, paired."""
    differences = draws - other_draws
    low, high = interval(differences)
    tiny = 1e-9  # the other may have no error; nor may both, which is no difference
    relative_low, relative_high = interval(differences / np.maximum(other_draws, tiny))
    return Difference(
        value=rate - other_rate,
        low=low,
        high=high,
        relative=(rate - other_rate) / max(other_rate, tiny),
        relative_low=relative_low,
        relative_high=relative_high,
    )
