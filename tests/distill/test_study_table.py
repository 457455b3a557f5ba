"""The page of a study."""

from typing import Any

from distill.study_table import between, percent, row, sentence, to_markdown


def difference(value: float, half: float = 0.01) -> dict[str, float]:
    return {
        "value": value, "low": value - half, "high": value + half,
        "relative": 2 * value, "relative_low": 2 * (value - half),
        "relative_high": 2 * (value + half),
    }  # fmt: skip


def arm(name: str, question: str, wer: float, **fields: Any) -> dict[str, Any]:
    return {
        "name": name, "question": question, "layers": 2, "parameters": 1_234_567,
        "size_bytes": 2_500_000, "hours": 0.5,
        "by_language": {"en": wer},
        "wer": wer, "wer_low": wer - 0.02, "wer_high": wer + 0.03, "seeds": [wer, wer],
        "cer": wer / 2, "cer_low": wer / 2 - 0.01, "cer_high": wer / 2 + 0.01,
        "difference": difference(wer - 0.2), "speed": 1.5,
        **fields,
    }  # fmt: skip


def results(*arms: dict[str, Any]) -> dict[str, Any]:
    return {
        "teacher": "embedded", "teacher_wer": 0.1, "teacher_low": 0.08, "teacher_high": 0.12,
        "teacher_cer": 0.05, "teacher_by_language": {"en": 0.1},
        "test_clips": 30, "test_speakers": 4, "seen_speakers_left_out": 3,
        "max_steps": 500, "arms": list(arms), "pairs": [],
        "config": {"layers": 2, "seeds": [0, 1], "bootstrap_samples": 2000, "resample": "clips"},
        "hardware": {"processor": "a processor", "gpus": [], "threads": 2},
    }  # fmt: skip


def pair(wer: dict[str, float], verdict: str) -> dict[str, Any]:
    return {
        "name": "w4-trained", "against": "w4-rounded", "wer": wer, "wer_verdict": verdict,
        "cer": difference(-0.1, 0.2), "cer_verdict": "no difference shown",
    }  # fmt: skip


def section(page: str, question: str) -> list[str]:
    lines = page.split(f"## By {question}\n")[1].split("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ") and "---" not in line]


BASE = arm("layers-2", "decoder layers", 0.2)


def test_every_question_shows_its_students_and_the_one_they_are_compared_with():
    page = to_markdown(
        results(
            arm("labels-only", "loss", 0.25),
            BASE,
            arm("layers-1", "decoder layers", 0.3),
            arm("data-25", "data", 0.3),
        )
    )
    assert [line.split(" | ")[0] for line in section(page, "loss")] == [
        "| student", "| labels-only", "| **layers-2**",
    ]  # fmt: skip
    assert len(section(page, "data")) == 3
    assert len(section(page, "decoder layers")) == 3
    assert page.index("## By decoder layers") < page.index("## By loss")
    assert "Table 21" in page
    assert "## By threshold" not in page


def test_a_question_that_was_not_asked_has_no_table():
    page = to_markdown(results(BASE, arm("matching-uniform", "matching", 0.2)))
    assert "## By decoder layers" not in page
    assert "**layers-2**" in page


def test_every_line_of_a_table_has_as_many_cells():
    page = to_markdown(results(BASE, arm("zero-shot", "loss", 0.9, size_bytes=None, speed=None)))
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| – |" in page


def test_a_difference_has_its_sign_and_its_interval_and_the_compared_one_has_none():
    worse = row(arm("labels-only", "loss", 0.25), is_base=False)
    assert worse == (
        "| labels-only | 2 | 1.23 | 2.50 | 0.50 | 25.0 % (23.0 to 28.0) | 25.0 %, 25.0 % | "
        "+5.0 (+4.0 to +6.0) | 12.5 % (11.5 to 13.5) | 1.50 × |"
    )
    assert "| 20.0 %, 20.0 % | – | 10.0 %" in row(BASE, is_base=True)


def test_the_page_says_what_the_intervals_show_and_no_more():
    page = to_markdown(results(BASE) | {"pairs": [pair(difference(-0.03), "fewer errors")]})
    expected = sentence(pair(difference(-0.03), "fewer errors"))
    heading, _, sentences = page.rpartition("## What the intervals say\n\n")[2].partition("\n\n")
    assert (
        heading
        == "- **w4.** Training on the grid is better than rounding: WER -3.0 (-4.0 to -2.0)."
    )
    assert "Each of the 1 comparisons below" in sentences
    assert page.endswith(f"\n\n{expected}\n")
    assert expected == (
        "- `w4-trained` against `w4-rounded`: fewer errors (WER -3.0 (-4.0 to -2.0) points); in "
        "characters no difference shown (CER -20.0 %, -60.0 to +20.0, relatively)."
    )


def test_several_languages_have_a_table_of_their_own():
    teacher = {"teacher_by_language": {"de": 0.2, "ja": 0.1}}
    page = to_markdown(results(BASE | {"by_language": {"de": 0.25, "ja": 0.125}}) | teacher)
    table = page.split("## By language\n")[1].splitlines()
    assert [row for row in table if row.startswith("|")] == [
        "| student | de | ja |", "| --- | --- | --- |",
        "| teacher | 20.0 % | 10.0 % |", "| layers-2 | 25.0 % | 12.5 % |",
    ]  # fmt: skip
    assert "## By language" not in to_markdown(results(BASE))


def test_the_page_says_who_was_tested_on_what():
    page = to_markdown(results(BASE))
    assert "Teacher `embedded`: 10.0 % WER (8.0 to 12.0), 5.0 % CER. Students of 500 steps" in page
    assert "30 test clips of 4 speakers" in page
    assert "(3 clips of others left out)" in page
    assert "2000 resamplings of seeds and clips" in page
    assert "Made on a processor, 2 thread(s)." in page


def test_rates_are_rounded_to_a_tenth_of_a_percent():
    assert percent(0.12345) == "12.3 %"
    assert between(0.0004, 1.0) == "0.0 to 100.0"
