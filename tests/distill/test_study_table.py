"""The page of a study."""

from typing import Any

from distill.study_table import between, percent, row, to_markdown


def arm(name: str, question: str, wer: float, **fields: Any) -> dict[str, Any]:
    return {
        "name": name, "question": question, "layers": 2, "parameters": 1_234_567, "hours": 0.5,
        "wer": wer, "wer_low": wer - 0.02, "wer_high": wer + 0.03, "seeds": [wer, wer],
        "difference": wer - 0.2, "difference_low": wer - 0.21, "difference_high": wer - 0.19,
        **fields,
    }  # fmt: skip


def results(*arms: dict[str, Any]) -> dict[str, Any]:
    return {
        "teacher": "embedded", "teacher_wer": 0.1, "teacher_low": 0.08, "teacher_high": 0.12,
        "test_clips": 30, "test_speakers": 4, "seen_speakers_left_out": 3, "max_steps": 500,
        "arms": list(arms), "config": {"layers": 2},
        "hardware": {"processor": "a processor", "gpus": [], "threads": 2},
    }  # fmt: skip


def section(page: str, question: str) -> list[str]:
    lines = page.split(f"## By {question}\n")[1].split("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ") and "---" not in line]


BASE = arm("layers-2", "decoder layers", 0.2)


def test_every_question_shows_its_students_and_the_one_they_are_compared_with():
    page = to_markdown(results(arm("labels-only", "loss", 0.25), BASE, arm("data-25", "data", 0.3)))
    assert [line.split(" | ")[0] for line in section(page, "loss")] == [
        "| student", "| labels-only", "| **layers-2**",
    ]  # fmt: skip
    assert len(section(page, "data")) == 3
    assert len(section(page, "decoder layers")) == 2
    assert page.index("## By decoder layers") < page.index("## By loss")
    assert "The paper, Table 21" in page
    assert "## By threshold" not in page


def test_a_difference_has_its_sign_and_its_interval_and_the_compared_one_has_none():
    worse = row(arm("labels-only", "loss", 0.25), is_base=False)
    assert worse == (
        "| labels-only | 2 | 1.23 | 0.50 | 25.0 % (23.0 to 28.0) | 25.0 %, 25.0 % | "
        "+5.0 (+4.0 to +6.0) |"
    )
    assert row(BASE, is_base=True).endswith("| 20.0 %, 20.0 % | – |")


def test_the_page_says_who_was_tested_on_what():
    page = to_markdown(results(BASE))
    assert "Teacher `embedded`: 10.0 % WER (8.0 to 12.0). Students of 500 steps" in page
    assert "30 test clips of 4 speakers" in page
    assert "(3 clips of others left out)" in page
    assert "Made on a processor, 2 thread(s)." in page


def test_rates_are_rounded_to_a_tenth_of_a_percent():
    assert percent(0.12345) == "12.3 %"
    assert between(0.0004, 1.0) == "0.0 to 100.0"
