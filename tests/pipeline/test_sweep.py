import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.filters import FilterConfig, rejection
from pipeline.ledger import write_ledger
from pipeline.schema import Sample, Segment
from pipeline.scoring import score
from pipeline.sweep import count_rules, judge, judge_parts, sweep, sweep_groups

BASE = Sample(
    id="u", corpus="c", split="train", language="en", language_probability=1.0, speaker="",
    licence="cc0-1.0", recording="a.wav", start_seconds=0.0, duration_seconds=3.6, utterances=(),
    reference="the cat sat on the mat today then", pseudo_label="the cat sat on the mat today then",
    tokens=(), segments=(), previous_pseudo_label="", wer=0.0, cer=0.0, metric="wer",
    substitutions=0, deletions=0, insertions=0, avg_logprob=-0.2, no_speech_prob=0.0,
    compression_ratio=1.0, temperature=0.0, truncated=False, teacher="t", teacher_revision="0",
)  # fmt: skip


def rows() -> list[Sample]:
    """Forty clips with 0 to 7 errors in eight words, some bad in another way too."""
    made = []
    for i in range(40):
        errors = i % 8
        made.append(
            dataclasses.replace(
                BASE,
                id=f"u{i}",
                corpus="ab"[i % 2],
                language=["en", "de"][i % 5 == 0],
                split="test" if i == 39 else "train",
                wer=errors / 8,
                cer=errors / 8,
                substitutions=errors,
                truncated=i % 10 == 3,
                duration_seconds=0.9 + i / 10,
                segments=(Segment(start=2.0, end=1.0, text=""),) if i == 6 else (),
            )
        )
    return [
        *made,
        dataclasses.replace(
            BASE, id="free", reference="", metric="", wer=None, cer=None,
            substitutions=None, deletions=None, insertions=None,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.125, 0.4, 1.0])
@pytest.mark.parametrize("budget", [0, 1])
def test_a_threshold_keeps_what_a_run_with_it_would_keep(limit, budget):
    judged = judge(rows(), FilterConfig(error_budget=budget))
    config = FilterConfig(max_wer=limit, error_budget=budget)
    kept = [r for r in rows() if r.split == "train" and rejection(r, config) is None]
    (point,) = sweep(judged, [limit])
    assert point.clips == len(kept)
    assert point.hours == round(sum(r.duration_seconds for r in kept) / 3600, 4)
    errors = sum(r.substitutions or 0 for r in kept)
    words = sum(8 for r in kept if r.metric)
    assert point.mean_wer == pytest.approx(errors / words, abs=1e-5)


def test_groups_add_up_to_the_whole():
    judged = judge(rows(), FilterConfig())
    whole = sweep(judged)
    for groups in sweep_groups(judged).values():
        for i, point in enumerate(whole):
            assert sum(points[i].clips for points in groups.values()) == point.clips
    assert list(sweep_groups(judged)["duration"]) == ["0-1 s", "1-2 s", "2-5 s"]


def test_word_errors_and_character_errors_are_not_added_up():
    japanese = dataclasses.replace(
        BASE, id="ja", language="ja", metric="cer", reference="昨日、映画を見ました。",
        pseudo_label="昨日、映画を見ました。", duration_seconds=3.0,
    )  # fmt: skip
    wrong = dataclasses.replace(japanese, id="ja2", cer=1 / 9, substitutions=1)
    english = dataclasses.replace(BASE, wer=1 / 8, substitutions=1)
    judged = judge([english, japanese, wrong], FilterConfig(speaking_rate="off"))
    whole, strict = sweep(judged, [0.2, 0.0])
    assert whole.mean_wer is None
    assert whole.mean_rates == pytest.approx({"wer": 1 / 8, "cer": 1 / 18}, abs=1e-5)
    assert (strict.mean_wer, strict.mean_rates) == (0.0, {"cer": 0.0})
    languages = sweep_groups(judged, [0.2])["language"]
    assert languages["en"][0].mean_wer == pytest.approx(1 / 8)
    assert languages["ja"][0].mean_wer == pytest.approx(1 / 18, abs=1e-5)


@pytest.mark.parametrize(
    ("language", "text", "metric", "length"),
    [
        ("ja", "昨日、映画を見ました。", "cer", 9),
        ("fr", "Comment ça va ? – Bien !", "wer", 4),
        ("en", "the cat sat", "wer", 3),
    ],
)
def test_references_without_errors_are_as_long_as_they_are_judged(language, text, metric, length):
    row = dataclasses.replace(
        BASE, language=language, metric=metric, reference=text, pseudo_label=text
    )
    assert judge([row], FilterConfig()).lengths.tolist() == [length]
    assert score(text, text, language).reference_length == length


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_threshold_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match="out of range; give fractions"):
        sweep(judge(rows(), FilterConfig()), [limit])


def test_no_threshold_at_all_is_refused():
    with pytest.raises(ValueError, match="no threshold to try"):
        sweep(judge(rows(), FilterConfig()), [])


def test_the_reasons_of_all_rules_add_up_to_what_is_rejected():
    judged = judge(rows(), FilterConfig())
    counts = {c.reason: c for c in count_rules(judged)}
    assert sum(c.first for c in counts.values()) == int((~judged.kept).sum())
    assert counts["truncated"].rejected == 4
    assert counts["truncated"].only == 0  # all of them have errors too
    assert counts["timestamp_disorder"].first == 1
    assert counts["wer"].only == counts["wer"].first


def test_parts_are_judged_as_their_rows_are(tmp_path: Path):
    everything = rows()
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for part, some in zip(parts, (everything[:20], [], everything[20:]), strict=True):
        write_ledger(part, some, {})
    fast, slow = judge_parts(parts, FilterConfig()), judge(everything, FilterConfig())
    for field in dataclasses.fields(slow):
        np.testing.assert_equal(getattr(fast, field.name), getattr(slow, field.name))


def test_an_empty_ledger_is_judged():
    judged = judge([], FilterConfig())
    assert (len(judged), count_rules(judged), sweep(judged)[0].clips) == (0, (), 0)


def test_a_part_that_cannot_be_judged_says_why(tmp_path: Path):
    part = tmp_path / "part.parquet"
    with pytest.raises(FileNotFoundError, match="not labelled yet"):
        judge_parts([part], FilterConfig())
    write_ledger(part, rows(), {})
    pq.write_table(pq.read_table(part).drop_columns(["avg_logprob"]), part)
    with pytest.raises(ValueError, match=r"another schema: it lacks avg_logprob\. Use the release"):
        judge_parts([part], FilterConfig())
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged or half-written"):
        judge_parts([part], FilterConfig())
