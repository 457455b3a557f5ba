"""How good each rule is where the truth is known: on planted defects.

A clip is bad where a defect was planted in it, or where its label is further than the threshold
from what was said; a rule is right where it rejects a bad clip. The utterances of a pack are judged
one by one, and measured so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.files import AnyPath
from pipeline.filters import REASONS
from pipeline.ledger import read_ledger
from pipeline.pieces import pieces
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.sweep import Judged


@dataclass(frozen=True, kw_only=True)
class RuleMeasure:
    """What a rule is worth."""

    reason: str
    rejected: int
    precision: float
    """Of the clips it rejects, the share that is bad."""
    recall: float
    """Of the bad clips, the share it rejects."""
    adds: int
    """Bad clips that no other rule rejects."""


def measure(verdicts: np.ndarray, bad: np.ndarray) -> tuple[RuleMeasure, ...]:
    """Measure every rule that rejects something, and all of them together as "any".

    `verdicts` are bits in the order of `REASONS`, `bad` is True or False; both of shape (clips,).
    """
    found = []
    for position, reason in enumerate((*REASONS, "any")):
        bit = np.uint32(1 << position)
        rejects = verdicts != 0 if reason == "any" else (verdicts & bit) != 0
        if not rejects.any():
            continue
        right = int((rejects & bad).sum())
        alone = rejects if reason == "any" else verdicts == bit
        found.append(
            RuleMeasure(
                reason=reason,
                rejected=int(rejects.sum()),
                precision=round(right / int(rejects.sum()), 4),
                recall=round(right / max(int(bad.sum()), 1), 4),
                adds=int((alone & bad).sum()),
            )
        )
    return tuple(found)


def measure_planted(
    parts: Sequence[AnyPath], judged: Judged, corpora: Sequence[str], max_wer: float
) -> tuple[RuleMeasure, ...]:
    """Measure the rules on the embedded corpus; () where nothing of it was judged.

    Args:
        parts: the ledger parts that are of it, in the order in which all were judged.
        judged: all that was judged.
        corpora: what the configuration calls it.
        max_wer: the threshold above which a label is bad.
    """
    wanted = [code for code, name in enumerate(judged.corpus_names) if name in corpora]
    if not wanted:
        return ()
    lines = (EMBEDDED_FOLDER / "planted.jsonl").read_text(encoding="utf-8").splitlines()
    planted = {json.loads(line)["id"] for line in lines}
    has_defect = [
        any(utterance.id in planted for utterance in piece.utterances)
        for part in parts
        for row in read_ledger(part)[0]
        for piece in pieces(row)
    ]
    mine = np.isin(judged.corpora, wanted)
    bad = np.array(has_defect, dtype=bool) | (judged.rates[mine] > max_wer)
    return measure(judged.verdicts[mine], bad)
