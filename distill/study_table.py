"""The table of a study, and what the paper found where it asked the same."""

from typing import Any

PAPER = {
    "decoder layers": (
        "Table 12: from 16 layers to 2, WER rises from 9.9 to 11.4 % (teacher 11.1 %), and speed "
        "from 1.9 to 5.8 times."
    ),
    "loss": "Table 21: labels alone 11.6 %, labels and KL 11.4 %.",
    "threshold": (
        "Table 10: 13.4 % without a filter, 11.7 % at 20 %, 11.4 % at 10 and at 5 %; most of the "
        "gain comes from removing the worst labels."
    ),
    "data": (
        "Table 11: in-domain WER 17.1 % with 435 h, 14.0 % with 1742 h, 12.6 % with 21 770 h; less "
        "and less is gained."
    ),
}
"""Distil-Whisper (arXiv 2311.00430); its rates are averages over its validation sets."""


def to_markdown(results: dict[str, Any]) -> str:
    """Write `study.json` as a page."""
    hardware = results["hardware"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['threads']} thread(s)"
    lines = [
        "# Study",
        "",
        f"Teacher `{results['teacher']}`: {percent(results['teacher_wer'])} WER "
        f"({between(results['teacher_low'], results['teacher_high'])}). Students of "
        f"{results['max_steps']} steps; {results['test_clips']} test clips of "
        f"{results['test_speakers']} speakers whom no student has heard in training "
        f"({results['seen_speakers_left_out']} clips of others left out). Intervals hold 95 % of "
        "the resamplings of seeds and speakers; the difference is from the first row in bold.",
        "",
        f"Made on {hardware['processor']}, {devices}.",
    ]
    base = f"layers-{results['config']['layers']}"
    arms = sorted(results["arms"], key=lambda arm: arm["question"] != "decoder layers")
    head = "| student | layers | M parameters | hours | WER | by seed | difference, points |"
    questions = dict.fromkeys(arm["question"] for arm in arms)
    compared = next(arm for arm in arms if arm["name"] == base)
    for question in questions:
        rows = [arm for arm in arms if arm["question"] == question]
        if compared not in rows:
            rows.append(compared)
        lines += ["", f"## By {question}", "", head, "|---|---|---|---|---|---|---|"]
        lines += [row(arm, arm["name"] == base) for arm in rows]
        lines += ["", f"The paper, {PAPER[question]}"]
    return "\n".join(lines) + "\n"


def row(arm: dict[str, Any], is_base: bool) -> str:
    """Write one student."""
    points = (arm["difference"], arm["difference_low"], arm["difference_high"])
    difference, low, high = (f"{100 * value:+.1f}" for value in points)
    cells = [
        f"**{arm['name']}**" if is_base else arm["name"],
        str(arm["layers"]),
        f"{arm['parameters'] / 1e6:.2f}",
        f"{arm['hours']:.2f}",
        f"{percent(arm['wer'])} ({between(arm['wer_low'], arm['wer_high'])})",
        ", ".join(percent(rate) for rate in arm["seeds"]),
        "–" if is_base else f"{difference} ({low} to {high})",
    ]
    return f"| {' | '.join(cells)} |"


def percent(rate: float) -> str:
    """Write a fraction as a percentage."""
    return f"{100 * rate:.1f} %"


def between(low: float, high: float) -> str:
    """Write an interval of fractions."""
    return f"{100 * low:.1f} to {100 * high:.1f}"
