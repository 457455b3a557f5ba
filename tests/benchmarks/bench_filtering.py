"""Speed of deciding: scoring, and judging a large ledger again; one line per part.

Run with `make bench` before and after a change, on the same quiet machine.
"""

import random
import resource
import time
from pathlib import Path

import jiwer
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.embedded.text import sentences
from pipeline.filters import FilterConfig
from pipeline.ledger import LEDGER_SCHEMA
from pipeline.scoring import normalize, score_batch
from pipeline.sweep import count_rules, judge_parts, sweep, sweep_groups

NUM_PAIRS = 5000
NUM_ROWS = 1_000_000


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


def test_sweeping_a_large_ledger(tmp_path: Path):
    part = tmp_path / "ledger.parquet"
    write_large_ledger(part, NUM_ROWS)
    started = time.perf_counter()
    judged = judge_parts([part], FilterConfig(max_wer=0.2))
    judging = time.perf_counter() - started
    points = sweep(judged)
    sweep_groups(judged)
    count_rules(judged)
    whole = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert points[-1].clips > 0
    print(
        f"\n{NUM_ROWS:,} rows: judged again in {judging:.1f} s, judged and swept in {whole:.1f} s, "
        f"at most {memory:.2f} GiB in this process"
    )


def write_large_ledger(path: Path, count: int) -> None:
    """Write rows of distinct sentences, over and over, as a block's part would hold them."""
    references, hypotheses = pairs(NUM_PAIRS)
    scores = score_batch(references, hypotheses, "en")
    rows = [
        {
            "id": str(i),
            "corpus": f"corpus{i % 3}",
            "split": "train",
            "language": "en",
            "language_probability": 1.0,
            "speaker": "",
            "licence": "cc0-1.0",
            "recording": "a.wav",
            "start_seconds": 0.0,
            "duration_seconds": len(reference) / 15,
            "utterances": [{"id": str(i), "start": 0.0, "duration": 1.0, "reference": reference}],
            "reference": reference,
            "pseudo_label": hypothesis,
            "tokens": list(range(20)),
            "segments": [{"start": 0.0, "end": 1.0, "text": hypothesis}],
            "previous_pseudo_label": "",
            "wer": scored.wer,
            "cer": scored.cer,
            "metric": scored.metric,
            "substitutions": scored.substitutions,
            "deletions": scored.deletions,
            "insertions": scored.insertions,
            "avg_logprob": -0.3,
            "no_speech_prob": 0.01,
            "compression_ratio": 1.2,
            "temperature": 0.0,
            "truncated": False,
            "teacher": "t",
            "teacher_revision": "0",
        }
        for i, (reference, hypothesis, scored) in enumerate(
            zip(references, hypotheses, scores, strict=True)
        )
    ]
    table = pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)
    with pq.ParquetWriter(path, LEDGER_SCHEMA, compression="zstd") as writer:
        for _ in range(-(-count // NUM_PAIRS)):
            writer.write_table(table)
