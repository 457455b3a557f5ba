import random
from dataclasses import replace

import pytest

from pipeline.examples import PER_GROUP, choose, compare
from pipeline.filters import FilterConfig
from pipeline.plots import _round_up, bars, calibration, trade_off
from pipeline.schema import Sample
from pipeline.sweep import judge

GOOD = Sample(
    id="u", corpus="c", split="train", language="en", language_probability=1.0, speaker="",
    licence="cc0-1.0", recording="a.wav", start_seconds=0.0, duration_seconds=3.0, utterances=(),
    reference="one sentence of the corpus", pseudo_label="one sentence of the corpus",
    tokens=(), segments=(), previous_pseudo_label="", wer=0.0, cer=0.0, metric="wer",
    substitutions=0, deletions=0, insertions=0, avg_logprob=-0.2, no_speech_prob=0.0,
    compression_ratio=1.0, temperature=0.0, truncated=False, teacher="t", teacher_revision="0",
)  # fmt: skip


def kinds(reference: str, label: str, language: str = "en") -> list[tuple[str, str, str]]:
    return [(d.kind, d.reference, d.label) for d in compare(reference, label, language)]


def test_words_are_compared_as_scoring_does_and_shown_as_they_are():
    assert kinds("The colour, red!", "the color red.") == [
        ("equal", "The colour, red!", "the color red.")
    ]
    assert kinds("one cat sat", "one bad dog sat down") == [
        ("equal", "one", "one"),
        ("insert", "", "bad"),
        ("replace", "cat", "dog"),
        ("equal", "sat", "sat"),
        ("insert", "", "down"),
    ]
    assert kinds("a b", "a") == [("equal", "a", "a"), ("delete", "b", "")]


def test_a_language_without_spaces_is_compared_by_characters():
    assert kinds("今日は雨", "今日も雨", "ja") == [
        ("equal", "今日", "今日"),
        ("replace", "は", "も"),
        ("equal", "雨", "雨"),
    ]


def test_the_worst_the_border_and_every_rule_are_shown_once():
    rng = random.Random(0)
    rows = [replace(GOOD, id=str(i), wer=rng.choice([0.05, 0.1, 0.2, 0.9])) for i in range(200)]
    rows[17] = replace(GOOD, id="17", truncated=True, wer=0.0)
    chosen = choose(judge(rows, FilterConfig()), 0.1)
    groups = [group for group, _ in chosen]
    positions = [position for _, position in chosen]
    assert len(set(positions)) == len(positions)
    assert groups == sorted(groups, key=["worst", "border", "truncated"].index)
    assert [position for group, position in chosen if group == "truncated"] == [17]
    worst = [rows[position].wer for group, position in chosen if group == "worst"]
    assert worst == [0.9] * PER_GROUP
    border = {rows[position].wer for group, position in chosen if group == "border"}
    assert border == {0.1, 0.2}


def test_plots_say_their_numbers_with_units_and_escape_their_words():
    svg = bars(["<b>", "more"], [3, 0], "A & B", "x")
    assert "<b>" not in svg
    assert "&lt;b&gt;: 3, more: 0" in svg
    assert svg.count("<rect") == 2
    assert ">clips</text>" in svg
    both = trade_off([(0, 1.0, 0.0), (10, 5.0, None), (40, 7.0, 3.25)], 10, "t")
    assert (
        "<desc>0 %: 1 hours, error rate 0 %, 10 %: 5 hours, 40 %: 7 hours, error rate 3.25 %<"
        in both
    )
    assert ">hours kept</text>" in both
    assert ">error rate kept, %</text>" in both
    assert both.count('class="dot"') == 3
    assert both.count('class="dot second"') == 2
    assert "chosen: 10 %" in both


@pytest.mark.parametrize("value", [0, 0.003, 0.96, 1, 3, 466, 619, 999_999])
def test_an_axis_is_round_and_hardly_longer_than_it_must_be(value):
    top = _round_up(value)
    assert value <= top <= max(2 * value, 1)
    assert float(f"{top / 2:.1g}") == pytest.approx(top / 2)


def test_nothing_is_drawn_of_nothing():
    empty = trade_off([], 10, "t") + bars([], [], "t", "x") + calibration([], "t")
    assert "nan" not in empty
    assert "<circle" not in empty
