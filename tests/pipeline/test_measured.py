"""What the rules are worth on labels whose defects are known, because they were planted."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from pipeline.context import Context
from pipeline.duplicates import Contamination, find_duplicates
from pipeline.embedded.text import sentences
from pipeline.filters import REASONS, FilterConfig, clip_bits, utterance_bits
from pipeline.ledger import write_ledger
from pipeline.measures import RuleMeasure, measure, measure_planted
from pipeline.schema import EMBEDDED_FOLDER, ClipUtterance, Sample, Segment
from pipeline.scoring import score
from pipeline.sweep import judge_parts
from pipeline.wording import _phrase_file
from tests.shared_data import ABSENT, SPEECH

# Said by people, and rejected by filters that look at too little.
EVERYDAY = [
    "No, no, no, no.",
    "Thank you.",
    "Bye.",
    "NASA",
    "Thank you Senator, my question is about the budget.",
    "I'll see you in the next video store, said the old man.",
    "Ha ha ha.",
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve.",
    "It is what it is, and that is that.",
]


def bits_of(row: Sample) -> int:
    return clip_bits(row, FilterConfig(), Context()) | utterance_bits(
        row, FilterConfig(), Context()
    )


def row(number: int, reference: str, label: str, rng: random.Random, **changes) -> Sample:
    seconds = changes.pop("duration_seconds", max(0.4, len(reference) / rng.uniform(11, 19)))
    scored = score(reference, label, changes.get("language", "en"))
    fields = {
        "id": str(number),
        "corpus": "planted",
        "split": "train",
        "language": "en",
        "language_probability": rng.uniform(0.9, 1.0),
        "speaker": "",
        "licence": "cc0-1.0",
        "recording": f"{number}.wav",
        "start_seconds": 0.0,
        "duration_seconds": seconds,
        "utterances": (),
        "reference": reference,
        "pseudo_label": label,
        "tokens": (),
        "segments": (Segment(start=0.0, end=seconds, text=label),),
        "previous_pseudo_label": "",
        "wer": scored.wer,
        "cer": scored.cer,
        "metric": scored.metric,
        "substitutions": scored.substitutions,
        "deletions": scored.deletions,
        "insertions": scored.insertions,
        "avg_logprob": -rng.uniform(0.05, 0.45),
        "no_speech_prob": rng.uniform(0.0, 0.2),
        "compression_ratio": rng.uniform(0.8, 1.6),
        "temperature": 0.0,
        "truncated": False,
        "teacher": "t",
        "teacher_revision": "0",
    }
    return Sample(**(fields | changes))


def evidence(number: int, rng: random.Random) -> dict[str, float]:
    """Make the teacher unsure of every tenth clip, for one reason or the other."""
    if number % 20 == 0:
        return {"no_speech_prob": rng.uniform(0.3, 0.9)}
    return {"avg_logprob": -rng.uniform(0.5, 1.3)} if number % 20 == 10 else {}


def plant(kind: str, number: int, text: str, other: str, rng: random.Random) -> Sample:
    """Return a row with a defect of one kind."""
    words = text.split()
    match kind:
        case "wrong_reference":
            return row(number, other, text, rng)
        case "nothing_heard":
            return row(number, text, "", rng, no_speech_prob=0.7, compression_ratio=0.0)
        case "noise":
            return row(number, text, "Hmm, the the.", rng, no_speech_prob=0.9, avg_logprob=-1.3)
        case "stock_phrase":
            phrase = rng.choice(_phrase_file()["en"])
            return row(number, text, phrase.capitalize(), rng, no_speech_prob=0.5)
        case "loop":
            label = " ".join(words + words[-2:] * 12)
            return row(number, text, label, rng, compression_ratio=3.1)
        case "shouting":
            return row(number, text, text.upper(), rng)
        case "wrong_language":
            label = "Быстрая лисица прыгает через ленивую собаку"
            return row(number, text, label, rng)
        case "cut_off":
            return row(number, text, " ".join(words[: len(words) // 2]), rng, truncated=True)
        case "impossibly_fast":
            return row(number, text, text, rng, duration_seconds=len(text) / 40)
        case "astray":
            segments = (Segment(start=4.0, end=5.0, text="a"), Segment(start=1.0, end=2.0, text=""))
            return row(number, text, other, rng, segments=segments)
        case "no_text":
            return row(number, "...", text, rng)
    raise AssertionError(kind)


CAUGHT_BY = {
    "wrong_reference": "wer",
    "nothing_heard": "empty_label",
    "noise": "no_speech",
    "stock_phrase": "hallucination",
    "loop": "repetition",
    "shouting": "uppercase",
    "wrong_language": "language",
    "cut_off": "truncated",
    "impossibly_fast": "speaking_rate",
    "astray": "timestamp_disorder",
    "no_text": "empty_reference",
}
"""Which rule is there for which defect."""

PER_KIND, GOOD = 40, 1500


@pytest.fixture(scope="module")
def planted() -> tuple[list[Sample], list[str]]:
    """Rows and the kind of defect of each; "" for good ones."""
    rng = random.Random(0)
    texts = sentences(GOOD + 2 * PER_KIND * len(CAUGHT_BY), 5, 4, 20)
    good = [*texts[:GOOD], *EVERYDAY * 5]
    rows = [row(i, text, text, rng, **evidence(i, rng)) for i, text in enumerate(good)]
    kinds = [""] * len(rows)
    spare = iter(texts[GOOD:])
    for kind in CAUGHT_BY:
        for _ in range(PER_KIND):
            rows.append(plant(kind, len(rows), next(spare), next(spare), rng))
            kinds.append(kind)
    return rows, kinds


@pytest.fixture(scope="module")
def bits(planted) -> np.ndarray:
    rows, _ = planted
    return np.array([bits_of(r) for r in rows], dtype=np.uint32)


@pytest.fixture(scope="module")
def measured(planted, bits) -> dict[str, RuleMeasure]:
    bad = np.array([bool(kind) for kind in planted[1]])
    return {m.reason: m for m in measure(bits, bad)}


@pytest.mark.parametrize("reason", ["any", *REASONS])
def test_what_a_shipped_rule_rejects_is_bad_or_it_is_off_by_default(measured, reason):
    if reason in FilterConfig().switched_off:
        assert reason not in measured
    else:
        assert measured[reason].precision >= 0.95


@pytest.mark.parametrize(("kind", "reason"), CAUGHT_BY.items())
def test_a_rule_finds_what_it_is_there_for(planted, bits, kind, reason):
    mine = np.array([k == kind for k in planted[1]])
    caught = (bits[mine] & np.uint32(1 << REASONS.index(reason))) != 0
    assert caught.mean() >= 0.95


@pytest.mark.parametrize("reason", ["wer", "uppercase", "speaking_rate"])
def test_without_the_rule_bad_clips_would_be_kept(measured, reason):
    assert measured[reason].adds >= 0.9 * PER_KIND


def test_without_references_the_other_rules_still_find_most(planted):
    rows, kinds = planted
    pairs = [
        (r, k) for r, k in zip(rows, kinds, strict=True) if k not in ("wrong_reference", "no_text")
    ]
    blank = {"reference": "", "metric": "", "wer": None, "cer": None}
    found = [bits_of(replace(r, **blank)) != 0 for r, _ in pairs]
    bad = np.array([bool(k) for _, k in pairs])
    rejected = np.array(found)
    assert (rejected & bad).sum() >= 0.95 * bad.sum()
    assert (rejected & bad).sum() >= 0.95 * rejected.sum()


def test_copies_and_evaluation_sentences_are_found(planted):
    rows = planted[0][:200]
    hashed = [_hashed(r, f"sha{i}") for i, r in enumerate(rows)]
    hashed += [replace(r, id=f"copy{r.id}") for r in hashed[:20]]
    assert [key[2] for key in find_duplicates(hashed)] == [f"copy{r.id}" for r in rows[:20]]
    inside = rows[::10]
    index = Contamination(10, [(r.reference, "en") for r in inside])
    found = {r.id for r in rows if index.overlaps(r.pseudo_label, "en")}
    assert {r.id for r in inside} <= found
    assert len(found) <= len(inside) / 0.95


def test_a_planted_defect_is_found_inside_a_pack(tmp_path):
    planted = (EMBEDDED_FOLDER / "planted.jsonl").read_text("utf-8").splitlines()
    texts = {"fine": "they went by train", json.loads(planted[0])["id"]: "FOR IT WAS RAINING"}
    rng = random.Random(0)
    pack = replace(
        row(0, " ".join(texts.values()), " ".join(texts.values()), rng),
        utterances=tuple(
            ClipUtterance(
                id=name, start=1.5 * i, duration=1.5, reference=text, pseudo_label=text, wer=0.0
            )
            for i, (name, text) in enumerate(texts.items())
        ),
    )
    other = replace(row(1, "somewhere else", "somewhere else", rng), corpus="mine")
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for part, one in zip(parts, (other, pack), strict=True):
        write_ledger(part, [one], {})
    judged = judge_parts(parts, FilterConfig())
    (uppercase, everything) = measure_planted(parts[1:], judged, ["planted"], 0.1)
    assert (uppercase.reason, uppercase.rejected) == ("uppercase", 1)
    assert (everything.precision, everything.recall) == (1.0, 1.0)


def _hashed(row: Sample, audio_sha256: str) -> Sample:
    """Return the row as one of a single utterance with this hash of its audio."""
    utterance = ClipUtterance(
        id=row.id,
        start=0.0,
        duration=row.duration_seconds,
        reference=row.reference,
        audio_sha256=audio_sha256,
    )
    return replace(row, utterances=(utterance,))


@pytest.mark.parametrize(
    "corpus", ["en_kathleen", "en_speechocean_train", "de_kerstin", "nl_nathalie"]
)
def test_corrupted_references_of_real_speech_are_found(corpus):
    manifest = SPEECH / corpus / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip(ABSENT)
    rng = random.Random(1)
    lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()[:300]]
    rows, bad = [], []
    for i, line in enumerate(lines):
        text, wrong = line["text"], rng.random() < 0.2
        reference = rng.choice(lines)["text"] if wrong else text
        label = text.capitalize() + "."
        extra = {"language": line["lang"], "duration_seconds": line["duration"]}
        rows.append(row(i, reference, label, rng, **extra))
        bad.append(wrong and reference != text)
    bits = [bits_of(r) for r in rows]
    found = {m.reason: m for m in measure(np.array(bits, dtype=np.uint32), np.array(bad))}
    assert found["any"].precision >= 0.95
    assert found["wer"].recall >= 0.98
