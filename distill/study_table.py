"""The table of a study, what its intervals allow to be said, and what the papers found."""

from typing import Any

from distill.study_reading import reading

PAPER = {
    "decoder layers": (
        "Distil-Whisper, Table 12: from 16 layers to 2, WER rises from 9.9 to 11.4 % (teacher "
        "11.1 %), and speed from 1.9 to 5.8 times."
    ),
    "loss": "Distil-Whisper, Table 21: labels alone 11.6 %, labels and KL 11.4 %.",
    "threshold": (
        "Distil-Whisper, Table 10: 13.4 % without a filter, 11.7 % at 20 %, 11.4 % at 10 and at "
        "5 %; most of the gain comes from removing the worst labels."
    ),
    "data": (
        "Distil-Whisper, Table 11: in-domain WER 17.1 % with 435 h, 14.0 % with 1742 h, 12.6 % "
        "with 21 770 h; less and less is gained."
    ),
    "matching": (
        "DQ-Whisper matches layers dynamically; a study of matchings (arXiv 2502.04499) finds that "
        "clever maps are worth little, and a reversed one does surprisingly well."
    ),
    "quantisation": (
        "Whisper-KDQ: CER 11.3 % (base) and 14.0 % (tiny) relatively below the same size without "
        "distillation; 8 bits cost hardly anything."
    ),
}
"""Rates of Distil-Whisper (arXiv 2311.00430) are averages over its validation sets."""

HEAD = (
    "student",
    "layers",
    "M parameters",
    "MB",
    "hours",
    "WER",
    "by seed",
    "difference, points",
    "CER",
    "speed",
)


def to_markdown(results: dict[str, Any]) -> str:
    """Write `study.json` as a page."""
    hardware, config = results["hardware"], results["config"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['threads']} thread(s)"
    lines = [
        "# Study",
        "",
        f"Teacher `{results['teacher']}`: {percent(results['teacher_wer'])} WER "
        f"({between(results['teacher_low'], results['teacher_high'])}), "
        f"{percent(results['teacher_cer'])} CER. Students of {results['max_steps']} steps, seeds "
        f"{', '.join(map(str, config['seeds']))}; {results['test_clips']} test clips of "
        f"{results['test_speakers']} speakers whom no student has heard in training "
        f"({results['seen_speakers_left_out']} clips of others left out). Intervals hold 95 % of "
        f"{config['bootstrap_samples']} resamplings of seeds and {config['resample']}; those of "
        "differences are paired. All are compared with the student in bold: "
        f"{config['layers']} decoder layers, labels and KL, float weights.",
        "",
        "MB are of the weights, in float16 where they are on no grid. Speed is that of a batch of "
        "clips in float32, layers in 8 bits multiplying integers.",
        "",
        f"Made on {hardware['processor']}, {devices}.",
    ]
    base = f"layers-{config['layers']}"
    arms = sorted(results["arms"], key=lambda arm: arm["question"] != "decoder layers")
    compared = next(arm for arm in arms if arm["name"] == base)
    for question in dict.fromkeys(arm["question"] for arm in arms):
        rows = [arm for arm in arms if arm["question"] == question]
        if compared not in rows:
            rows.append(compared)
        if len(rows) == 1:
            continue  # no other depth was tried
        lines += ["", f"## By {question}", "", line(HEAD), line(["---"] * len(HEAD))]
        lines += [row(arm, arm["name"] == base) for arm in rows]
        lines += ["", PAPER[question]]
    lines += languages(results)
    if results["pairs"]:
        lines += ["", "## What the intervals say", ""]
        lines += [f"- {claim}" for claim in reading(results["pairs"], base)]
        number = len(results["pairs"])
        lines += [
            "",
            f"Each of the {number} comparisons below holds its interval against 0 by itself: of "
            "those without a real difference, about one in twenty shows one by chance. "
            f"{len(config['seeds'])} seed(s) say little about how far trainings scatter.",
            "",
        ]
        lines += [sentence(pair) for pair in results["pairs"]]
    return "\n".join(lines) + "\n"


def languages(results: dict[str, Any]) -> list[str]:
    """Write the error rate of each student in each language, where there are several."""
    codes = list(results["teacher_by_language"])
    if len(codes) < 2:
        return []
    lines = ["", "## By language", "", "Characters count where a language is judged by them.", ""]
    lines += [line(["student", *codes]), line(["---"] * (1 + len(codes)))]
    rows = [("teacher", results["teacher_by_language"])]
    rows += [(arm["name"], arm["by_language"]) for arm in results["arms"]]
    return lines + [line([name, *(percent(found[code]) for code in codes)]) for name, found in rows]


def row(arm: dict[str, Any], is_base: bool) -> str:
    """Write one student."""
    size, speed = arm["size_bytes"], arm["speed"]
    return line(
        [
            f"**{arm['name']}**" if is_base else arm["name"],
            str(arm["layers"]),
            f"{arm['parameters'] / 1e6:.2f}",
            "–" if size is None else f"{size / 1e6:.2f}",
            f"{arm['hours']:.2f}",
            f"{percent(arm['wer'])} ({between(arm['wer_low'], arm['wer_high'])})",
            ", ".join(percent(rate) for rate in arm["seeds"]),
            "–" if is_base else points(arm["difference"]),
            f"{percent(arm['cer'])} ({between(arm['cer_low'], arm['cer_high'])})",
            "–" if speed is None else f"{speed:.2f} ×",
        ]
    )


def sentence(pair: dict[str, Any]) -> str:
    """Say what a comparison shows, and nothing more than its interval allows."""
    cer = pair["cer"]
    relative, low, high = (
        f"{100 * cer[name]:+.1f}" for name in ("relative", "relative_low", "relative_high")
    )
    return (
        f"- `{pair['name']}` against `{pair['against']}`: {pair['wer_verdict']} (WER "
        f"{points(pair['wer'])} points); in characters {pair['cer_verdict']} (CER {relative} %, "
        f"{low} to {high}, relatively)."
    )


def points(difference: dict[str, float]) -> str:
    """Write a difference and its interval in percentage points."""
    value, low, high = (f"{100 * difference[name]:+.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def line(cells: list[str] | tuple[str, ...]) -> str:
    """Write a line of a table."""
    return f"| {' | '.join(cells)} |"


def percent(rate: float) -> str:
    """Write a fraction as a percentage."""
    return f"{100 * rate:.1f} %"


def between(low: float, high: float) -> str:
    """Write an interval of fractions."""
    return f"{100 * low:.1f} to {100 * high:.1f}"
