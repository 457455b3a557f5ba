"""Rows of a benchmark as a Markdown table, to paste into the README."""

from typing import Any


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table whose head is the keys of the first row."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
