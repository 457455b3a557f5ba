"""Text that nobody spoke: loops, insertions, and answers to sounds that are not speech.

Repeated five-grams are counted per recording and the reference's own are subtracted, since people
repeat themselves too; the paper's count over a whole corpus (arXiv 2311.00430, table 8) grows with
its length and mixes the two.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.schema import SAMPLE_RATE

_NGRAM = 5
_MAX_PERIOD = 30
"""Words in the longest phrase whose repetition is looked for."""


@dataclass(frozen=True, kw_only=True)
class Loops:
    """What repeats itself in a set of texts."""

    repeated_five_grams: int
    """Beyond the reference's own, summed over recordings."""
    recordings_with_loops: int
    longest_loop: int
    """Words that repeat the words before them, in the worst recording."""
    longest_loop_id: str


def find_loops(ids: list[str], references: list[list[str]], texts: list[list[str]]) -> Loops:
    """Look for repetition in normalised texts, given as words."""
    found = [loops_of(reference, text) for reference, text in zip(references, texts, strict=True)]
    excess, loops = [count for count, _ in found], [loop for _, loop in found]
    worst = int(np.argmax(loops)) if loops else 0
    return Loops(
        repeated_five_grams=sum(excess),
        recordings_with_loops=sum(count > 0 for count in excess),
        longest_loop=max(loops, default=0),
        longest_loop_id=ids[worst] if loops and loops[worst] else "",
    )


def loops_of(reference: list[str], text: list[str]) -> tuple[int, int]:
    """Return the repeated five-grams and the longest loop of a text beyond its reference's own."""
    return (
        max(0, repeated_ngrams(text) - repeated_ngrams(reference)),
        max(0, longest_loop(text) - longest_loop(reference)),
    )


def repeated_ngrams(words: list[str], size: int = _NGRAM) -> int:
    """Count the n-grams that were there before."""
    counts = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    return sum(count - 1 for count in counts.values())


def longest_loop(words: list[str]) -> int:
    """Count the words of the longest stretch that repeats the phrase before it."""
    longest = 0
    for period in range(1, min(_MAX_PERIOD, len(words) // 2) + 1):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            if run >= period:
                longest = max(longest, run)
    return longest


def non_speech(seed: int) -> dict[str, np.ndarray]:
    """Return sounds in which nobody speaks, float32 mono at 16 kHz; the same for the same seed."""
    from distill.robustness import pub_noise, white_noise

    length = 10 * SAMPLE_RATE
    rng = np.random.default_rng(seed)
    time = np.arange(length) / SAMPLE_RATE
    chords = np.zeros(length)
    for beat in range(20):  # half a second each: three notes of a pentatonic scale, fading
        begin = beat * SAMPLE_RATE // 2
        for note in rng.choice([0, 3, 5, 7, 10, 12], 3, replace=False):
            tone = time[: length - begin]
            chords[begin:] += np.sin(2 * np.pi * 220 * 2 ** (note / 12) * tone) * np.exp(-4 * tone)
    hiss = rng.normal(0, 1e-4, length)
    return {
        "silence": hiss.astype(np.float32),
        "white": (0.05 * white_noise(length, seed)).astype(np.float32),
        "babble": (0.05 * pub_noise(length, seed)).astype(np.float32),
        "music": (0.1 * chords / np.abs(chords).max()).astype(np.float32),
    }
