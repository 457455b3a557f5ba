"""How well two teachers agree: the best evidence there is about a label without a reference.

uDistil-Whisper (Waheed et al., 2025) found agreement with a second model about as good a filter as
a reference. Another, cheaper model labels the same corpora in a run of its own; here its ledger is
laid beside the first one.
"""

from collections.abc import Iterable

from pipeline.duplicates import RowKey, row_key
from pipeline.schema import Sample
from pipeline.scoring import score


def disagreements(rows: Iterable[Sample], second: Iterable[Sample]) -> dict[RowKey, float]:
    """Return the error rate between the labels of both teachers, for every row that both have.

    The second teacher's label takes the place of the reference. Where both heard nothing they
    agree. Rows are matched by corpus, split and id; a row whose audio span differs is left out,
    because then they did not hear the same.
    """
    others = {row_key(row): row for row in second}
    rates = {}
    for row in rows:
        other = others.get(row_key(row))
        if other is not None and _same_span(row, other):
            rates[row_key(row)] = score(other.pseudo_label, row.pseudo_label, row.language).rate
    return rates


def _same_span(one: Sample, other: Sample) -> bool:
    return (
        one.recording == other.recording
        and abs(one.start_seconds - other.start_seconds) < 0.01
        and abs(one.duration_seconds - other.duration_seconds) < 0.01
    )
