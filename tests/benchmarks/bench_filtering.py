"""Speed of deciding: scoring, and judging a large ledger again; one line per part.

Run with `make bench` before and after a change, on the same quiet machine.
"""

import random
import time

import jiwer

from pipeline.embedded.text import sentences
from pipeline.scoring import normalize, score_batch

NUM_PAIRS = 5000


def pairs(count: int) -> tuple[list[str], list[str]]:
    """Return sentences, and the same with every twelfth word wrong."""
    references = sentences(count, 1, 4, 24)
    rng = random.Random(1)
    hypotheses = [
        " ".join("wrong" if rng.random() < 1 / 12 else word for word in text.split())
        for text in references
    ]
    return references, hypotheses


def test_scoring_beside_jiwer():
    references, hypotheses = pairs(NUM_PAIRS)
    score_batch(references[:1], hypotheses[:1], "en")  # loads the rules

    def ours() -> None:
        score_batch(references, hypotheses, "en")

    def normalised() -> tuple[list[str], list[str]]:
        return [normalize(t, "en") for t in references], [normalize(t, "en") for t in hypotheses]

    def jiwers() -> None:
        """Do the same work: both texts normalised, word and character errors."""
        plain, plain_hypotheses = normalised()
        jiwer.process_words(plain, plain_hypotheses)
        jiwer.process_characters(plain, plain_hypotheses)

    def jiwers_words() -> None:
        jiwer.process_words(*normalised())

    seconds = {function.__name__: [] for function in (ours, jiwers, jiwers_words)}
    for _ in range(3):
        for function in (ours, jiwers, jiwers_words):
            started = time.perf_counter()
            function()
            seconds[function.__name__].append(time.perf_counter() - started)
    best = {name: min(values) for name, values in seconds.items()}
    print(
        f"\nscore_batch: {NUM_PAIRS / best['ours']:,.0f} pairs/s, "
        f"{best['jiwers'] / best['ours']:.2f} x jiwer (words and characters), "
        f"{best['jiwers_words'] / best['ours']:.2f} x jiwer (words only)"
    )
