"""Speed of deciding: scoring, and judging a large ledger again; one line of JSON per part.

Run with `make bench` before and after a change, on the same quiet machine, or by itself; ROWS makes
the ledger smaller (1,000,000 rows are to be judged and swept within 30 s and 2 GB):

    ROWS=1000000 python -m pytest tests/benchmarks/bench_filtering.py -q -s

Scoring takes turns with jiwer's batch call on the same texts (wanted: a ratio of at least 1).
Times are of the processor, so what else runs on the machine is not counted.
"""

import json
import os
import random
import resource
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import jiwer
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.embedded.text import sentences
from pipeline.filters import FilterConfig
from pipeline.ledger import LEDGER_SCHEMA
from pipeline.schema import ClipUtterance
from pipeline.scoring import normalize, score_batch
from pipeline.sweep import count_rules, judge_parts, sweep, sweep_groups

NUM_PAIRS = 5000
NUM_ROWS = int(os.environ.get("ROWS", "1000000"))
ROUNDS = 7


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

    seconds: dict[str, list[float]] = {"ours": [], "jiwers": [], "jiwers_words": []}
    for _ in range(ROUNDS):
        for function in (ours, jiwers, jiwers_words):
            started = time.process_time()
            function()
            seconds[function.__name__].append(time.process_time() - started)

    def ratio(name: str) -> float:
        pairs_of = zip(seconds[name], seconds["ours"], strict=True)
        return round(statistics.median(theirs / ours for theirs, ours in pairs_of), 3)

    rate = NUM_PAIRS / statistics.median(seconds["ours"])
    result = {
        "pairs_per_second": round(rate),
        "times_jiwer_words_and_characters": ratio("jiwers"),
        "times_jiwer_words": ratio("jiwers_words"),
    }
    print("\n" + json.dumps({"score_batch": result}))


def test_sweeping_a_large_ledger(tmp_path: Path):
    part = tmp_path / "ledger.parquet"
    write_large_ledger(part, NUM_ROWS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.process_time()
    judged = judge_parts([part], FilterConfig(max_wer=0.2))
    judging = time.process_time() - started
    points = sweep(judged)
    sweep_groups(judged)
    count_rules(judged)
    whole = time.process_time() - started
    assert points[-1].clips > 0
    result = {
        "rows": NUM_ROWS,
        "judged_seconds": round(judging, 2),
        "judged_and_swept_seconds": round(whole, 2),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "megabytes_before": round(before),
    }
    print("\n" + json.dumps({"sweep": result}))


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
            "utterances": [
                asdict(ClipUtterance(id=str(i), start=0.0, duration=1.0, reference=reference))
            ],
            "reference": reference,
            "pseudo_label": hypothesis,
            "tokens": list(range(20)),
            "segments": [{"start": 0.0, "end": 1.0, "text": hypothesis}],
            "previous_pseudo_label": "",
            "wer": scored.wer,
            "cer": scored.cer,
            "metric": scored.metric,
            "normalizer": "english",
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
            "token_logprobs": [],
        }
        for i, (reference, hypothesis, scored) in enumerate(
            zip(references, hypotheses, scores, strict=True)
        )
    ]
    table = pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)
    with pq.ParquetWriter(path, LEDGER_SCHEMA, compression="zstd") as writer:
        for _ in range(-(-count // NUM_PAIRS)):
            writer.write_table(table)
