"""`report.html`: every table of an evaluation in one file that needs nothing else."""

import html
from pathlib import Path
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --page: #fff; --rule: #d5dbe1;
  --line-0: #2f5fa8; --line-1: #b84a12; --line-2: #2d7a3e; --line-3: #8a4fb0; --line-4: #866f00;
  --line-5: #b0356b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --page: #0f1319; --rule: #303a46;
    --line-0: #7fb0ff; --line-1: #ff9e64; --line-2: #7fd18c; --line-3: #cf9bef; --line-4: #dcc24a;
    --line-5: #ff8fbd; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { max-width: 48rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: bottom; }
th { color: var(--soft); font-weight: 600; } td { white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
td.text { font-size: .85rem; max-width: 30rem; white-space: normal; }
.note { color: var(--soft); font-size: .9rem; margin: .2rem 0 .6rem; }
figure { margin: .4rem 0 .8rem; max-width: 44rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); } .rule { stroke: var(--rule); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; padding: 0; margin: .2rem 0 0;
  list-style: none; font-size: .9rem; }
.legend li { overflow-wrap: anywhere; }
.legend svg { display: inline-block; width: 2rem; height: .7rem; margin-right: .4rem; }
"""
_TITLES = {
    "short": ("Short-form", "Clips of up to 30 s, each in one window."),
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
_NAMES = {
    "wer": "WER", "wer_low": "WER from", "wer_high": "to", "rtfx": "RTFx", "snr_db": "SNR, dB",
    "p_value": "p",
}  # fmt: skip
"""Headings that are not the field's own name."""
_NUM_COLOURS = 6
_DASHES = ("none", "7 4", "2 3", "9 3 2 3")
_PROSE = ("text", "reason")
_PERCENT = ("wer", "wer_low", "wer_high", "insertion_rate", "acceptance", "identical", "cer",
            "orthographic_wer", "as_many_segments")  # fmt: skip


def _data(results: dict[str, Any]) -> str:
    """Say what was heard."""
    names = ", ".join(results["data"])
    return f"split {results['split']} of {names}" if results["split"] else names


def write_report(results: dict[str, Any], path: Path) -> None:
    """Write the report of the fields of `results.json`."""
    models = results["models"]
    body = [
        f"<h1>{len(models)} models on {results['num_clips']} clips</h1>",
        f"<p>{results['audio_seconds'] / 60:.1f} minutes of <b>{html.escape(_data(results))}</b>, "
        f"{results['made']}, batches of {results['batch_size']}, greedy. The first "
        "model is what the others are compared with. Intervals are 95 %, by bootstrap over clips; "
        "differences and p-values are of paired resamples.</p>",
        *_left_out(results["unreadable"]),
        f"<h2>{_TITLES[results['mode']][0]}</h2>",
        _table([_short_row(model) for model in models]),
        _where_time_went(results["spent"], results["overhead"]),
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
        body.append(_table(_side_by_side(rows) if name == "robustness" else rows))
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
        "size": _size(model),
        "WER": f"{rates['wer']:.2%}",
        "interval": f"{rates['wer_low']:.2%} to {rates['wer_high']:.2%}",
        "difference, points": "" if difference is None else _points(difference) + bounds,
        "p": "" if difference is None else _p_value(comparison["p_value"]),
        "CER": f"{rates['cer']:.2%}",
        "orthographic WER": f"{rates['orthographic_wer']:.2%}",
        "RTFx": f"{model['rtfx']:.1f}",
        "relative speed": f"{model['relative_speed']:.2f} x",
    }


def _size(model: dict[str, Any]) -> str:
    """Write a size with the numbers that it is counted in."""
    if model["size_bytes"] is None:
        return ""
    numbers = f" ({model['number_format']})" if model["number_format"] else ""
    return f"{model['size_bytes'] / 1e6:.2f} MB{numbers}"


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


def _left_out(unreadable: dict[str, str]) -> list[str]:
    """Name the clips that no model has heard."""
    if not unreadable:
        return []
    rows = [{"clip": id_, "reason": reason} for id_, reason in unreadable.items()]
    return ["<h2>Left out, since the audio cannot be read</h2>", _table(rows)]


def _where_time_went(spent: dict[str, float], overhead: float) -> str:
    others = ", ".join(f"{name} {spent[name]:.1f} s" for name in ("features", "reading", "scoring"))
    return (
        f'<p class="note">Models {spent["models"]:.1f} s; {others}: {overhead:.1%} of the '
        "models' time.</p>"
    )


def _groups(models: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [
        {"group": name or "unknown"}
        | {model["model"]: f"{model[key][name]:.2%}" for model in models}
        for name in models[0][key]
    ]


def _side_by_side(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the models beside each other, one row for each noise and ratio."""
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for row in rows:
        line = found.setdefault(
            (row["noise"], row["snr_db"]), {"noise": row["noise"], "snr_db": f"{row['snr_db']:g}"}
        )
        line[row["model"]] = f"{row['wer']:.2%}"
    return list(found.values())


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>Nothing to show.</p>"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(
        f"<th>{html.escape(_NAMES.get(name, name.replace('_', ' ')))}</th>" for name in columns
    )
    lines = ["".join(_cell(name, row.get(name)) for name in columns) for row in rows]
    return (
        f'<div class="wide"><table><tr>{head}</tr>'
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</table></div>"
    )


def _cell(name: str, value: Any) -> str:
    if name in _PROSE:
        return f'<td class="text">{html.escape(str(value))}</td>'
    if name in _PERCENT and isinstance(value, float):
        return f"<td>{value:.2%}</td>"
    return f"<td>{'' if value is None else html.escape(str(value))}</td>"


def _lines(rows: list[dict[str, Any]], x: str, y: str, group: str | None) -> str:
    """Draw a line for each model (and group): a colour for each model, dashes for each group."""
    names = list(dict.fromkeys((row["model"], row.get(group or "")) for row in rows))
    ticks = sorted({row[x] for row in rows})
    low, width = ticks[0], (ticks[-1] - ticks[0]) or 1
    most = max(max(row[y] for row in rows), 1e-9)

    def place(a: float, b: float) -> tuple[str, str]:
        return f"{50 + 520 * (a - low) / width:.1f}", f"{190 - 170 * b / most:.1f}"

    drawn = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        height = place(low, part * most)[1]
        drawn.append(
            f'<path class="rule" d="M50 {height}H570"/>'
            f'<text x="44" y="{height}" dy="4" text-anchor="end">{100 * part * most:.3g} %</text>'
        )
    for tick in ticks:
        drawn.append(f'<text x="{place(tick, 0)[0]}" y="208" text-anchor="middle">{tick:g}</text>')
    title = _NAMES.get(x, x.replace("_", " "))
    drawn.append(f'<text x="310" y="226" text-anchor="middle">{html.escape(title)}</text>')
    models = list(dict.fromkeys(row["model"] for row in rows))
    kinds = list(dict.fromkeys(row.get(group or "") for row in rows))
    legend = []
    for model, kind in names:
        points = [
            place(row[x], row[y])
            for row in sorted(rows, key=lambda row: row[x])
            if (row["model"], row.get(group or "")) == (model, kind)
        ]
        colour = f"var(--line-{models.index(model) % _NUM_COLOURS})"
        stroke = (
            f'style="stroke: {colour}" stroke-width="{3 if model == models[0] else 2}" '
            f'stroke-dasharray="{_DASHES[kinds.index(kind) % len(_DASHES)]}"'
        )
        drawn.append(
            f'<polyline fill="none" {stroke} points="{" ".join(f"{a},{b}" for a, b in points)}"/>'
            + "".join(
                f'<circle r="3" cx="{a}" cy="{b}" style="fill: {colour}"/>' for a, b in points
            )
        )
        label = html.escape(f"{model} {kind or ''}".strip())
        legend.append(
            f'<li><svg viewBox="0 0 40 10" aria-hidden="true"><path d="M0 5H40" {stroke}/></svg>'
            f"{label}</li>"
        )
    heading = html.escape(f"{y.upper()} by {title}")
    return (
        f'<figure><svg viewBox="0 0 590 235" font-size="13" role="img" aria-label="{heading}">'
        f'{"".join(drawn)}</svg><ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"
