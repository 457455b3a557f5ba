"""The report as a reader's browser takes it apart."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distill.evaluate_report import write_report


class Tables(HTMLParser):
    """Collects tables as lists of rows, and the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._inside = tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._inside == "h2":
            self.headings.append(data)


def model(name: str, wer: float, **fields: Any) -> dict[str, Any]:
    rates = {
        "wer": wer, "wer_low": wer - 0.01, "wer_high": wer + 0.01, "cer": wer / 2,
        "orthographic_wer": 2 * wer, "reference_length": 200, "substitutions": 7, "deletions": 5,
        "insertions": 3, "insertion_rate": 0.015,
        "loops": {"repeated_five_grams": 11, "recordings_with_loops": 2, "longest_loop": 13},
    }  # fmt: skip
    return {
        "model": name, "parameters": 1_500_000, "size_bytes": 3_000_000,
        "number_format": "float16", "rates": rates,
        "comparison": None, "decode_seconds": 2.0, "rtfx": 30.0, "relative_speed": 1.0,
        "by_language": {"en": wer}, "by_speaker": {"en a": wer, "en b": wer}, **fields,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def write_and_read(
        models: list[dict[str, Any]], parts: dict[str, Any] | None = None, **fields: Any
    ) -> Any:
        results = {
            "data": ["runs/<mine>"], "split": "test", "made": "2026-11-30", "mode": "short",
            "num_clips": 4, "audio_seconds": 90.0,
            "batch_size": 8, "models": models, "parts": parts or {}, "unreadable": {},
            "overhead": 0.025,
            "spent": {"models": 40.0, "features": 0.5, "reading": 0.3, "scoring": 0.2}, **fields,
        }  # fmt: skip
        write_report(results, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        found = Tables()
        found.feed(page)
        return page, found

    return write_and_read


def test_the_first_model_is_compared_with_nothing_and_the_others_with_it(read: Any):
    comparison = {"wer_difference": 0.0123, "low": -0.002, "high": 0.03, "p_value": 0.0456}
    student = model("student", 0.25, comparison=comparison, relative_speed=2.5, size_bytes=None)
    _, found = read([model("teacher", 0.2), student])
    head, teacher, other = found.tables[0]
    first, second = (dict(zip(head, row, strict=True)) for row in (teacher, other))
    assert first["WER"] == "20.00%"
    assert first["interval"] == "19.00% to 21.00%"
    assert (first["difference, points"], first["p"]) == ("", "")
    assert second["difference, points"] == "+1.23 (-0.20 to +3.00)"
    assert (second["p"], second["relative speed"], second["size"]) == ("0.046", "2.50 x", "")
    assert (first["parameters"], first["size"]) == ("1.50 M", "3.00 MB (float16)")
    errors = dict(zip(found.tables[1][0], found.tables[1][1], strict=True))
    assert [errors[k] for k in ("substitutions", "deletions", "insertions")] == ["7", "5", "3"]
    assert (errors["repeated five-grams"], errors["longest loop"]) == ("11", "13")


def test_groups_are_shown_where_there_are_several(read: Any):
    _, found = read([model("teacher", 0.2), model("student", 0.3)])
    assert "By speaker" in found.headings
    assert "By language" not in found.headings
    assert found.tables[2][1] == ["en a", "20.00%", "30.00%"]


def test_names_and_texts_are_shown_as_they_are_and_run_nothing(read: Any):
    row = {"model": "<b>", "sound": "white", "text": "<script>alert(1)</script> & so"}
    page, found = read([model("a<i>&b", 0.2)], {"non_speech": [row]})
    assert "<script" not in page
    assert "<i>" not in page
    assert found.tables[0][1][0] == "a<i>&b"
    assert found.tables[-1][1] == ["<b>", "white", "<script>alert(1)</script> & so"]


def test_every_model_and_noise_has_a_line_and_the_first_model_the_thickest(read: Any):
    rows = [
        {"model": name, "noise": noise, "snr_db": snr, "wer": wer}
        for name in ("teacher", "student")
        for noise in ("white", "pub")
        for snr, wer in ((10.0, 0.5), (0.0, 1.0))
    ]
    page, found = read([model("teacher", 0.2), model("student", 0.3)], {"robustness": rows})
    lines = re.findall(
        r'<polyline [^>]*stroke: ([^"]+)" stroke-width="(\d)" stroke-dasharray="([^"]+)" '
        r'points="([^"]+)"',
        page,
    )
    assert [(colour, width) for colour, width, _, _ in lines] == [
        ("var(--line-0)", "3"), ("var(--line-0)", "3"),
        ("var(--line-1)", "2"), ("var(--line-1)", "2"),
    ]  # fmt: skip
    dashes = [dash for _, _, dash, _ in lines]
    assert dashes[:2] == dashes[2:]
    assert len(set(dashes)) == 2
    legend = [re.sub("<[^>]+>", "", entry) for entry in re.findall("<li>(.*?)</li>", page)]
    assert legend == ["teacher white", "teacher pub", "student white", "student pub"]
    # from the lowest ratio on the left to the highest on the right, the worst rate at the top
    assert {points for *_, points in lines} == {"50.0,20.0 570.0,105.0"}
    # and the models beside each other
    assert found.tables[-1][:2] == [
        ["noise", "SNR, dB", "teacher", "student"],
        ["white", "10", "50.00%", "50.00%"],
    ]


def test_a_part_without_rows_and_a_missing_value_are_shown_as_such(read: Any):
    rows = [{"model": "m", "start_error": None, "as_many_segments": 0.5}]
    page, found = read([model("m", 0.2)], {"sequential": [], "timestamps": rows})
    assert "<p>Nothing to show.</p>" in page
    assert found.tables[-1][1] == ["m", "", "50.00%"]


def test_one_ratio_alone_can_be_drawn(read: Any):
    rows = [{"model": "m", "prompt_tokens": 0, "wer": 0.0}]
    page, _ = read([model("m", 0.2)], {"prompt_lengths": rows})
    assert 'points="50.0,190.0"' in page


def test_where_the_time_went_and_what_was_left_out_are_said(read: Any):
    page, found = read([model("m", 0.2)], unreadable={"talk-7": "talk.wav: no such file"})
    assert "features 0.5 s, reading 0.3 s, scoring 0.2 s: 2.5% of the models' time" in page
    assert found.tables[0] == [["clip", "reason"], ["talk-7", "talk.wav: no such file"]]
    assert "Left out" in found.headings[0]
    assert "Left out" not in read([model("m", 0.2)])[0]


def test_the_report_names_what_was_heard_and_when(read: Any):
    page, _ = read([model("teacher", 0.2)])
    assert "1.5 minutes of <b>split test of runs/&lt;mine&gt;</b>, 2026-11-30, " in page
    page, _ = read([model("teacher", 0.2)], data=["a.jsonl", "b.jsonl"], split="")
    assert "1.5 minutes of <b>a.jsonl, b.jsonl</b>, " in page
