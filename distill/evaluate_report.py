"""`report.html`: every table of an evaluation in one file that needs nothing else."""

import html
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text { text-align: left; }
td.text { font-size: .85rem; max-width: 24rem; }
.note { color: #555; font-size: .9rem; }
"""
_TITLES = {
    "latency": ("Speed by batch size", "Median time of a batch, without features."),
    "sequential": ("Long recordings, sequential", "Window after window, with timestamps."),
    "chunked": ("Long recordings, chunked", "Overlapping chunks, decoded side by side."),
    "speculative": (
        "As an assistant of the first model",
        "Speed relative to the first model alone; identical is the share of clips with exactly the "
        "same tokens.",
    ),
    "robustness": ("In noise", "Error rate by signal-to-noise ratio."),
    "non_speech": ("Sounds without speech", "Every word is one too many."),
    "chunk_lengths": ("Chunk length", "Chunked, by seconds in a chunk."),
    "prompt_lengths": ("Previous text", "Short-form, by tokens of previous text."),
    "timestamps": ("Times of segments", "Mean distance to the utterances, in seconds."),
    "edges": ("Edge lengths", "One recording, cut where windows end."),
}
_LINES = {
    "robustness": ("snr_db", "wer", "noise"),
    "chunk_lengths": ("chunk_seconds", "wer", None),
    "prompt_lengths": ("prompt_tokens", "wer", None),
}
_COLOURS = ("#3b6fb6", "#c2571a", "#3f8f4f", "#8a4fb0", "#a08a1c", "#555555")
_PERCENT = ("wer", "wer_low", "wer_high", "insertion_rate", "acceptance", "identical", "cer",
            "orthographic_wer", "as_many_segments")  # fmt: skip


def write_report(results: dict[str, Any], path: Path) -> None:
    """Write the report of the fields of `results.json`."""
    models = results["models"]
    body = [
        f"<h1>{len(models)} models on {results['num_clips']} clips</h1>",
        f"<p>{results['audio_seconds'] / 60:.1f} minutes of split <b>"
        f"{html.escape(results['split'])}</b>, batches of {results['batch_size']}, greedy. The "
        "first model is what the others are compared with. Intervals are 95 %, by bootstrap over "
        "clips; differences and p-values are of paired resamples.</p>",
        "<h2>Short-form</h2>",
        _table([_short_row(model) for model in models]),
        "<h2>Errors and repetition</h2>",
        '<p class="note">Counts of words. Repeated five-grams are beyond the reference\'s own.</p>',
        _table([_error_row(model) for model in models]),
    ]
    for key, title in (("by_language", "By language"), ("by_speaker", "By speaker")):
        rows = _groups(models, key)
        if len(rows) > 1:
            body += [f"<h2>{title}</h2>", _table(rows)]
    for name, rows in results["parts"].items():
        title, note = _TITLES.get(name, (name, ""))
        body += [f"<h2>{title}</h2>", f'<p class="note">{note}</p>']
        if name in _LINES and rows:
            body.append(_lines(rows, *_LINES[name]))
        body.append(_table(rows))
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evaluation</title>\n<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _short_row(model: dict[str, Any]) -> dict[str, Any]:
    rates, comparison = model["rates"], model["comparison"] or {}
    difference = comparison.get("wer_difference")
    bounds = (
        ""
        if difference is None
        else f" ({_points(comparison['low'])} to {_points(comparison['high'])})"
    )
    return {
        "model": model["model"],
        "parameters": "" if model["parameters"] is None else f"{model['parameters'] / 1e6:.2f} M",
        "size": "" if model["size_bytes"] is None else f"{model['size_bytes'] / 1e6:.2f} MB",
        "WER": f"{rates['wer']:.2%}",
        "interval": f"{rates['wer_low']:.2%} to {rates['wer_high']:.2%}",
        "difference, points": "" if difference is None else _points(difference) + bounds,
        "p": "" if difference is None else f"{comparison['p_value']:.3f}",
        "CER": f"{rates['cer']:.2%}",
        "orthographic WER": f"{rates['orthographic_wer']:.2%}",
        "RTFx": f"{model['rtfx']:.1f}",
        "relative speed": f"{model['relative_speed']:.2f} x",
    }


def _error_row(model: dict[str, Any]) -> dict[str, Any]:
    rates = model["rates"]
    return {
        "model": model["model"],
        "reference": rates["reference_length"],
        "substitutions": rates["substitutions"],
        "deletions": rates["deletions"],
        "insertions": rates["insertions"],
        "insertion rate": f"{rates['insertion_rate']:.2%}",
        "repeated five-grams": rates["loops"]["repeated_five_grams"],
        "clips with loops": rates["loops"]["recordings_with_loops"],
        "longest loop": rates["loops"]["longest_loop"],
    }


def _groups(models: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [
        {"group": name or "unknown"}
        | {model["model"]: f"{model[key][name]:.2%}" for model in models}
        for name in models[0][key]
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>Nothing to show.</p>"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in columns)
    lines = ["".join(_cell(name, row.get(name)) for name in columns) for row in rows]
    return (
        f'<div class="wide"><table><tr>{head}</tr>'
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</table></div>"
    )


def _cell(name: str, value: Any) -> str:
    if name == "text":
        return f'<td class="text">{html.escape(str(value))}</td>'
    if name in _PERCENT and isinstance(value, float):
        return f"<td>{value:.2%}</td>"
    return f"<td>{'' if value is None else html.escape(str(value))}</td>"


def _lines(rows: list[dict[str, Any]], x: str, y: str, group: str | None) -> str:
    """Draw a line for each model (and group) as SVG; the first model's is the thickest."""
    names = list(dict.fromkeys((row["model"], row.get(group or "")) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    values = [row[x] for row in rows]
    low, high = min(values), max(values)
    most = max(max(row[y] for row in rows), 1e-9)
    drawn = []
    for number, (model, kind) in enumerate(names):
        points = sorted(
            (row[x], row[y])
            for row in rows
            if (row["model"], row.get(group or "")) == (model, kind)
        )
        place = " ".join(
            f"{50 + 520 * ((a - low) / ((high - low) or 1)):.1f},{190 - 170 * b / most:.1f}"
            for a, b in points
        )
        colour = _COLOURS[number % len(_COLOURS)]
        width = 3 if model == models[0] else 2
        label = html.escape(f"{model} {kind or ''}".strip())
        drawn.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{place}"/>'
            f'<text x="590" y="{30 + 18 * number}" fill="{colour}">{label}</text>'
        )
    axis = (
        f'<text x="50" y="212">{low:g}</text><text x="550" y="212">{high:g}</text>'
        f'<text x="260" y="212">{html.escape(x.replace("_", " "))}</text>'
        f'<text x="0" y="25">{most:.0%}</text><text x="0" y="190">0 %</text>'
        '<path d="M50 20V190H570" fill="none" stroke="#999"/>'
    )
    return f'<svg viewBox="0 0 900 220" font-size="13" role="img">{axis}{"".join(drawn)}</svg>'


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"
