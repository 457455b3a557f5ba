"""What an evaluation prints: a Markdown table as papers have it, and what it left out."""

from typing import Any

from distill.evaluate import Results

_COLUMNS = {
    "short": "WER, short",
    "sequential": "WER, long, sequential",
    "chunked": "WER, long, chunked",
}


def comparison_table(results: Results) -> str:
    """Return parameters, speed and error rates of each model, in percent with 95 % intervals.

    Speed is that of what they are judged by, short-form where it was heard, relative to the first
    model; long recordings have a column for each way in which they were read.
    """
    parts = {name: results.parts[name] for name in _COLUMNS if name in results.parts}
    rates_of = (_COLUMNS[name] for name in (results.mode, *parts))
    head = ["model", "parameters", "relative speed", *rates_of]
    lines = [head, ["---"] * len(head)]
    for model in results.models:
        rates = model.rates
        millions = "" if model.parameters is None else f"{model.parameters / 1e6:.1f} M"
        lines.append(
            [
                model.model,
                millions,
                f"{model.relative_speed:.2f} ×",
                _rate(rates.wer, rates.wer_low, rates.wer_high),
                *(_long_rate(rows, model.model) for rows in parts.values()),
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def describe_unreadable(results: Results) -> str:
    """Name the clips that were left out, with their reasons."""
    lines = "\n  ".join(f"{id_}: {reason}" for id_, reason in results.unreadable.items())
    return (
        f"{len(results.unreadable)} clips could not be read; the results are of the others:\n"
        f"  {lines}"
    )


def _long_rate(rows: list[dict[str, Any]], model: str) -> str:
    row = next(row for row in rows if row["model"] == model)
    return _rate(row["wer"], row["wer_low"], row["wer_high"])


def _rate(wer: float, low: float, high: float) -> str:
    return f"{100 * wer:.1f} ({100 * low:.1f} to {100 * high:.1f})"
